//! Runs the events of a simulation one after the other.

use std::{ops::Range, time::Duration};

use ctguard_layout::Policy;
use fastrand::Rng;

use super::{
    SimulationError,
    agenda::{Agenda, Event},
    capture::Capture,
    flows::Waiting,
    frame::Frame,
    group::Group,
    network::Network,
    outcome::Record,
    report::{DaemonReport, Finished, StageReport},
    scenario::{GuardOptions, Scenario},
    steer::{Decided, Steering},
    table::State,
    tables::{Maps, hash_key},
    traffic::Traffic,
};
use ctguard_control::sources::SourceScope;
use ctguard_control::{Pace, look::Kind};

/// A larger table is not looked at before the guard is ready.
const MOST_AT_START: u64 = 300_000;

/// A flow takes this many round trips at most, if its SYN is challenged, and a bit.
const ROUND_TRIPS: u32 = 3;
const AND_A_BIT: Duration = Duration::from_millis(50);

/// Timing of the daemon.
#[derive(Debug, Default)]
struct Daemon {
    last_tick: Duration,
    /// When it ticks next, and the number of that tick.
    next_tick: Duration,
    number: u64,
    /// What the next write writes, and when that is due.
    decided: Option<Decided>,
    writes_at: Option<Duration>,
    /// It has died since the last tick.
    is_dead: bool,
    /// The number of its next look.
    look: u64,
}

pub(super) struct Run<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) random: Rng,
    pub(super) now: Duration,
    pub(super) agenda: Agenda,
    pub(super) maps: Maps,
    pub(super) networks: Vec<Network>,
    pub(super) traffic: Vec<Traffic>,
    pub(super) waiting: Waiting,
    pub(super) capture: Option<Capture>,
    /// The capture's next packet.
    pub(super) recorded: Frame,
    pub(super) record: Record,
    /// Flows counted without being judged since the last sample of them.
    pub(super) unsampled: u64,
    steering: Steering,
    daemon: Daemon,
    report: DaemonReport,
    stages: Vec<StageReport>,
}

impl<'s> Run<'s> {
    pub(super) fn new(
        scenario: &'s Scenario,
        policy: Policy,
        seed: u64,
        capture: Option<Capture>,
    ) -> Self {
        let mut random = Rng::with_seed(seed);
        let keys = [hash_key(|| random.u64(..)), hash_key(|| random.u64(..))];
        let duration = scenario.duration.0;
        let groups = &scenario.groups;
        let networks: Vec<_> =
            groups.iter().enumerate().map(|(index, group)| group.network(index)).collect();
        let traffic = groups.iter().zip(&networks);
        let traffic = traffic.map(|(group, network)| Traffic::new(group, network.size(), duration));
        let known = groups.iter().zip(&networks).filter(|(group, _)| group.known_before);
        let regulars: Vec<(SourceScope, [f32; 2])> = known
            .flat_map(|(group, network)| {
                let usual = group.usual();
                (0..u64::from(group.sources))
                    .map(move |source| (network.address(source).into(), usual))
            })
            .collect();
        let GuardOptions { processors, jiffies_per_second, .. } = scenario.guard;
        // Sources are counted one by one where they come again.
        let counted = |group: &Group| match capture {
            None if !group.spoofed => group.sources,
            None | Some(_) => 0,
        };
        let counted: Vec<_> = groups.iter().map(counted).collect();
        Self {
            now: Duration::ZERO,
            agenda: Agenda::default(),
            maps: Maps::new(scenario, policy, keys),
            traffic: traffic.collect(),
            networks,
            waiting: Waiting::default(),
            recorded: Frame::empty(),
            record: Record::new(&counted, duration, measured(scenario), attacks(scenario)),
            capture,
            unsampled: 0,
            report: DaemonReport::default(),
            stages: Vec::new(),
            steering: Steering::new(policy, processors, jiffies_per_second, regulars.into_iter()),
            daemon: Daemon::default(),
            scenario,
            random,
        }
    }

    /// Runs to the end.
    pub(super) fn finish(mut self) -> Result<Finished, SimulationError> {
        self.fill_table();
        self.first_look();
        self.agenda.plan(Duration::ZERO, Event::Tick { number: 0 });
        self.agenda.plan(Duration::ZERO, Event::Sample);
        if self.capture.is_some() {
            self.await_packet()?;
        } else {
            for (group, traffic) in self.traffic.iter().enumerate() {
                if let Some(at) = traffic.first(&mut self.random) {
                    self.agenda.plan(at, Event::Arrival { group });
                }
            }
        }
        while let Some((at, event)) = self.agenda.next() {
            if at > self.scenario.duration.0 {
                break;
            }
            self.now = at;
            self.maps.table.expire(at);
            self.handle(event)?;
        }
        let (replaced, deleted) = (self.maps.table.replaced, self.steering.finish());
        let (by_class, active) = (deleted.by_class(), deleted.active);
        let daemon =
            DaemonReport { deleted_entries: by_class, deleted_active: active, ..self.report };
        Ok(Finished { record: self.record, daemon, replaced, stages: self.stages })
    }

    fn handle(&mut self, event: Event) -> Result<(), SimulationError> {
        match event {
            Event::Arrival { group } => self.arrive(group),
            Event::Packet => self.replay()?,
            Event::Flow(step, flow) => self.proceed(step, *flow),
            Event::Tick { number } if number == self.daemon.number => self.tick(),
            Event::Write => self.write(),
            Event::Look { number } if number == self.daemon.look => self.look(),
            // Another was planned since.
            Event::Tick { .. } | Event::Look { .. } => {}
            Event::Sample => {
                self.record.look(self.maps.table.count());
                self.agenda.plan(self.now + self.record.step, Event::Sample);
            }
        }
        Ok(())
    }

    /// Fills the table with unanswered SYNs and established connections of every age.
    fn fill_table(&mut self) {
        let of = &self.scenario.table;
        let kinds = [
            (of.entries, State { kind: Kind::Unanswered, lives: of.lifetimes.syn_sent.0 }),
            (of.connections, State { kind: Kind::Established, lives: of.lifetimes.established.0 }),
        ];
        for (count, state) in kinds {
            for _ in 0..count {
                let source = Network::spoofed().address(self.random.u64(..)).into();
                let ends = state.lives.mul_f64(self.random.f64());
                self.maps.table.insert(self.random.u64(..), source, state, ends);
            }
        }
    }

    fn tick(&mut self) {
        self.daemon.last_tick = self.now;
        if let Some(end) = self.outage_ends() {
            self.daemon.is_dead = true;
            self.plan_tick(end);
            return;
        }
        if std::mem::take(&mut self.daemon.is_dead) {
            self.steering.restart(self.scenario.guard.jiffies_per_second);
            self.first_look();
        }
        self.report.ticks += 1;
        self.daemon.decided = self.steering.decide(self.now, &self.maps);
        let writes_at = self.now + self.scenario.guard.tick_delay.0;
        self.daemon.writes_at = Some(writes_at);
        self.agenda.plan(writes_at, Event::Write);
    }

    fn write(&mut self) {
        self.daemon.writes_at = None;
        let Some(decided) = self.daemon.decided.take() else { return };
        let written = self.steering.write(decided, self.now, &mut self.maps);
        let stages = written.changes.iter().map(|change| StageReport::new(self.now, change));
        self.stages.extend(stages);
        if written.left_calm {
            self.plan_look(self.now + Steering::dump_takes(&self.maps));
        }
        self.plan_tick(self.daemon.last_tick + written.pace.interval());
    }

    fn first_look(&mut self) {
        if self.maps.table.count() <= MOST_AT_START {
            self.look();
        } else {
            self.plan_look(self.now + Steering::dump_takes(&self.maps));
        }
    }

    fn look(&mut self) {
        // A daemon that starts again looks first.
        if self.outage_ends().is_none() && !self.daemon.is_dead {
            let next = self.steering.look(self.now, &mut self.maps);
            self.report.looks += 1;
            let is_calm = self.maps.limits.is_calm();
            let least =
                if is_calm { self.scenario.guard.look_interval_in_calm.0 } else { Duration::ZERO };
            self.plan_look(self.now + next.max(least));
        }
    }

    fn plan_look(&mut self, at: Duration) {
        self.daemon.look += 1;
        self.agenda.plan(at, Event::Look { number: self.daemon.look });
    }

    fn plan_tick(&mut self, at: Duration) {
        let at = at.max(self.now);
        self.daemon.number += 1;
        self.daemon.next_tick = at;
        self.agenda.plan(at, Event::Tick { number: self.daemon.number });
    }

    /// The data path wakes the daemon.
    pub(super) fn wake(&mut self) {
        let daemon = &self.daemon;
        let soonest = daemon.last_tick + Pace::SHORTEST;
        let at = (self.now + self.scenario.guard.wake_delay.0).max(soonest);
        if daemon.writes_at.is_none() && at < daemon.next_tick && self.outage_ends().is_none() {
            self.report.wakeups += 1;
            self.plan_tick(at);
        }
    }

    /// The last moment before the jiffies or the grant may change.
    pub(super) fn steady_until(&self) -> Duration {
        let daemon = &self.daemon;
        let write = daemon.next_tick + self.scenario.guard.tick_delay.0;
        let jiffy_ends = self.maps.clock.jiffy_ends(self.now);
        jiffy_ends.min(daemon.writes_at.unwrap_or(write)).min(self.scenario.duration.0)
    }

    fn outage_ends(&self) -> Option<Duration> {
        let mut outages = self.scenario.guard.outages.iter();
        let now = outages.find(|outage| (outage.begins.0..outage.ends.0).contains(&self.now));
        now.map(|outage| outage.ends.0)
    }
}

/// When there is an attack.
fn attacks(scenario: &Scenario) -> Vec<Range<Duration>> {
    let attacks = scenario.groups.iter().filter(|group| group.attack);
    let span = |group: &Group| {
        let active = group.active(scenario.duration.0);
        active.start..active.end + group.lasts.0
    };
    attacks.map(span).collect()
}

/// Flows that begin at the very end cannot be finished.
fn measured(scenario: &Scenario) -> Range<Duration> {
    let longest = scenario.groups.iter().map(|group| group.round_trip.0).max();
    let takes = longest.unwrap_or_default() * ROUND_TRIPS + AND_A_BIT;
    let duration = scenario.duration.0;
    // A short recording is measured whole.
    let ends = duration.checked_sub(takes).filter(|ends| *ends > takes).unwrap_or(duration);
    scenario
        .measure
        .map_or(Duration::ZERO..ends, |measure| measure.from.0..measure.until.0.min(ends))
}
