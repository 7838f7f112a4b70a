//! A table, a filter without false positives, and the flows of an hour.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::tuning::TUNING;

const STEP: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_hours(1);
/// How often all flows are looked at, besides after each dump and turn.
const LOOK: Duration = Duration::from_secs(1);
/// Flows that live at a time, about.
const FLOWS: usize = 60;
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;

#[test]
fn no_flow_that_lives_is_ever_forgotten() {
    for seed in SEEDS {
        let report = run(seed, Honesty::Honest);
        assert_eq!(report.forgotten, 0, "seed {seed}");
        assert!(report.turns > 20, "seed {seed}: {report:?}");
        assert!(report.failed_dumps > 10, "seed {seed}: {report:?}");
        assert!(report.longest_idle > 10 * TUNING.generation_lifetime, "seed {seed}: {report:?}");
    }
}

#[test]
fn a_flow_that_is_dead_leaves_within_two_generations() {
    for seed in SEEDS {
        let report = run(seed, Honesty::Honest);
        assert!(report.dead > 100, "seed {seed}: {report:?}");
        assert_eq!(report.undead, 0, "seed {seed}");
    }
}

#[test]
fn the_simulation_would_notice_a_flow_that_was_forgotten() {
    for lie in [Honesty::InterruptedIsComplete, Honesty::DumpAfterTheTurn] {
        let forgotten: u64 = SEEDS.map(|seed| run(seed, lie).forgotten).sum();
        assert!(forgotten > 0, "{lie:?}");
    }
}

/// What [`Generations`] learns about dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Honesty {
    Honest,
    /// An interrupted dump is called complete.
    InterruptedIsComplete,
    /// A dump is written only after the turn that it allowed, into the generation that gathers from
    /// then on.
    DumpAfterTheTurn,
}

#[derive(Debug, Default)]
struct Report {
    turns: u64,
    failed_dumps: u64,
    dead: u64,
    /// Flows that lived and were not in the asked generation, at some step.
    forgotten: u64,
    /// Flows in the filter two turns after their death.
    undead: u64,
    longest_idle: Duration,
}

/// A flow that lives.
struct Flow {
    /// When its entry comes into the table; noted up to [`IN_FLIGHT`] before.
    enters: Duration,
    dies: Duration,
    /// When the data path sees its next packet.
    speaks: Duration,
    seen: Duration,
    /// The bucket that it is in: when a dump passes it, 0 to 1 of the dump's time.
    bucket: f64,
}

struct Dump {
    began: Duration,
    ends: Duration,
    outcome: Outcome,
    /// How far it got, 0 to 1.
    position: f64,
    found: BTreeSet<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Complete,
    /// Leaves out some entries.
    Interrupted,
    /// Ends after some entries.
    Failed,
}

fn run(seed: u64, honesty: Honesty) -> Report {
    let mut world = World::new(seed, honesty);
    while world.now < HOUR {
        world.step();
    }
    world.report
}

struct World {
    now: Duration,
    random: Random,
    honesty: Honesty,
    flows: BTreeMap<u64, Flow>,
    next_flow: u64,
    filter: [BTreeSet<u64>; 2],
    asked: usize,
    generations: Generations,
    dump: Option<Dump>,
    late: BTreeSet<u64>,
    /// The dead, and how many turns ago they died.
    dead: BTreeMap<u64, u32>,
    looked: Duration,
    report: Report,
}

impl World {
    fn new(seed: u64, honesty: Honesty) -> Self {
        let now = Duration::from_secs(1);
        let mut world = Self {
            now,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            honesty,
            flows: BTreeMap::new(),
            next_flow: 0,
            filter: Default::default(),
            asked: 0,
            generations: Generations::new(now),
            dump: None,
            late: BTreeSet::new(),
            dead: BTreeMap::new(),
            looked: now,
            report: Report::default(),
        };
        // Flows of before, which nobody noted.
        for _ in 0..FLOWS {
            world.open(now);
        }
        world
    }

    fn step(&mut self) {
        self.now += STEP;
        while self.flows.len() < FLOWS {
            let id = self.open(self.now);
            self.note(id);
        }
        self.speak();
        self.bury();
        self.advance_dump();
        self.follow();
        if self.looked + LOOK <= self.now {
            self.check();
        }
    }

    fn open(&mut self, now: Duration) -> u64 {
        let id = self.next_flow;
        self.next_flow += 1;
        let idle = if self.random.chance(0.3) { 6000.0 } else { 60.0 };
        let flow = Flow {
            enters: now + self.random.time(IN_FLIGHT.as_secs_f64()),
            dies: now + Duration::from_millis(200) + self.random.time(2.0 * idle),
            speaks: now + self.random.time(idle),
            seen: now,
            bucket: self.random.unit(),
        };
        self.flows.insert(id, flow);
        id
    }

    fn note(&mut self, id: u64) {
        for generation in &mut self.filter {
            generation.insert(id);
        }
    }

    fn speak(&mut self) {
        for (&id, flow) in &mut self.flows {
            if flow.speaks <= self.now {
                self.report.longest_idle =
                    self.report.longest_idle.max(self.now.saturating_sub(flow.seen));
                flow.seen = self.now;
                flow.speaks = self.now + self.random.time(2000.0);
                for generation in &mut self.filter {
                    generation.insert(id);
                }
            }
        }
    }

    fn bury(&mut self) {
        let now = self.now;
        for (id, _) in self.flows.extract_if(.., |_, flow| flow.dies <= now) {
            self.dead.insert(id, 0);
            self.report.dead += 1;
        }
    }

    /// Finds the entries of the buckets that the dump passed in this step.
    fn advance_dump(&mut self) {
        let Some(mut dump) = self.dump.take() else { return };
        let length = dump.ends.saturating_sub(dump.began).as_secs_f64();
        let position = self.now.saturating_sub(dump.began).as_secs_f64() / length;
        let passed = dump.position..position;
        for (&id, flow) in &self.flows {
            let left_out = match dump.outcome {
                Outcome::Complete => false,
                Outcome::Interrupted => self.random.chance(0.3),
                Outcome::Failed => flow.bucket > 0.5,
            };
            if flow.enters <= self.now && passed.contains(&flow.bucket) && !left_out {
                dump.found.insert(id);
            }
        }
        dump.position = position;
        if self.now < dump.ends {
            self.dump = Some(dump);
        } else {
            self.finish(dump);
        }
    }

    fn finish(&mut self, mut dump: Dump) {
        match self.honesty {
            Honesty::DumpAfterTheTurn => self.late = dump.found,
            Honesty::Honest | Honesty::InterruptedIsComplete => {
                self.filter[1 - self.asked].append(&mut dump.found);
            }
        }
        let complete = match dump.outcome {
            Outcome::Complete => true,
            Outcome::Interrupted => self.honesty == Honesty::InterruptedIsComplete,
            Outcome::Failed => false,
        };
        self.report.failed_dumps += u64::from(!complete);
        self.generations.dumped(dump.began, self.now, complete);
        self.check();
    }

    /// Takes the next step, some time later.
    fn follow(&mut self) {
        if self.dump.is_some() || self.random.chance(0.5) {
            return;
        }
        let load = Load(if self.random.chance(0.002) { 0.5 } else { 0.1 });
        match self.generations.next(self.now, load) {
            Step::Wait => {}
            Step::Dump => {
                let outcome = match self.random.unit() {
                    ..0.5 => Outcome::Complete,
                    ..0.8 => Outcome::Interrupted,
                    _ => Outcome::Failed,
                };
                let length = STEP + self.random.time(3.0);
                self.dump = Some(Dump {
                    began: self.now,
                    ends: self.now + length,
                    outcome,
                    position: 0.0,
                    found: BTreeSet::new(),
                });
            }
            Step::Turn => self.turn(),
        }
    }

    fn turn(&mut self) {
        let cleared = self.asked;
        self.asked = 1 - cleared;
        self.filter[cleared].clear();
        self.filter[cleared].extend(std::mem::take(&mut self.late));
        self.generations.turned(self.now, Load(0.1));
        self.report.turns += 1;
        for (id, turns) in &mut self.dead {
            *turns += 1;
            if *turns == 2 {
                let known = self.filter[self.asked].contains(id);
                self.report.undead += u64::from(known);
            }
        }
        self.dead.retain(|_, turns| *turns < 2);
        self.check();
    }

    fn check(&mut self) {
        self.looked = self.now;
        if !self.generations.is_complete() {
            return;
        }
        let forgotten = self
            .flows
            .iter()
            .filter(|&(id, flow)| flow.enters <= self.now && !self.filter[self.asked].contains(id))
            .count();
        self.report.forgotten += forgotten as u64;
    }
}

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        f64::from(u32::try_from(word).unwrap()) / f64::from(u32::MAX)
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    fn time(&mut self, seconds: f64) -> Duration {
        Duration::from_secs_f64(self.unit() * seconds)
    }
}
