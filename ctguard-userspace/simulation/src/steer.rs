//! The daemon's ticks and looks, with its controller.

use std::{collections::BTreeMap, time::Duration};

use ctguard_layout::{Policy, TIERS, units::Jiffies};

use super::{table::Handle, tables::Maps};
use ctguard_control::{
    ControlPolicy, Controller, Decision, OfferedRates, Pace, Snapshot, StageChange,
    look::{self, Looking},
    reclaim::{Queue, ReclaimAges, ReclaimClass},
    regulars::{Regular, Regulars},
    sources::{KnownSources, SourceScope, sync},
    standing::{Standings, parts_room},
    tuning::TUNING,
};

/// What a dump takes for each entry.
const DUMPED_IN: Duration = Duration::from_micros(1);

/// When the run begins: regulars are learnt by the clock.
const SINCE_1970: Duration = Duration::from_hours(24 * 365 * 50);

/// What a tick decided, until it is written.
#[derive(Debug)]
pub(super) struct Decided {
    heartbeat: Jiffies,
    admitted: [u64; TIERS],
    decision: Decision,
}

/// What a write leaves to do.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) pace: Pace,
    pub(super) changes: Vec<StageChange>,
    pub(super) left_calm: bool,
}

/// The daemon's memory between two ticks.
#[derive(Debug)]
pub(super) struct Steering {
    is_calm: bool,
    policy: ControlPolicy,
    ages: ReclaimAges,
    processors: u64,
    controller: Controller,
    rates: OfferedRates,
    standings: Standings,
    /// What the data path's set of known sources holds.
    written: KnownSources,
    queue: Queue<Handle>,
    look_interval: Duration,
    deleted: Deleted,
}

/// Entries that the daemon deleted.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    by_class: [u64; ReclaimClass::COUNT],
    /// Those that saw packets.
    pub(super) active: u64,
}

impl Deleted {
    fn all(&self) -> u64 {
        self.by_class.iter().sum()
    }

    pub(super) fn by_class(&self) -> BTreeMap<&'static str, u64> {
        ReclaimClass::named(self.by_class).collect()
    }
}

impl Steering {
    pub(super) fn new(
        policy: Policy,
        processors: u32,
        jiffies_per_second: u32,
        regulars: impl Iterator<Item = (SourceScope, [f32; 2])>,
    ) -> Self {
        let regular = |(source, usual)| {
            (source, Regular { score: TUNING.regular_highest, usual, is_proven: true })
        };
        let regulars = regulars.map(regular);
        Self {
            policy: ControlPolicy::of(&policy, policy.source.map(|rate| rate.flows_per_second)),
            ages: ReclaimAges::of(&policy),
            processors: processors.into(),
            controller: Controller::new(jiffies_per_second),
            rates: OfferedRates::default(),
            is_calm: true,
            standings: Standings::new(Regulars::restore(regulars, SINCE_1970)),
            written: KnownSources::new(),
            queue: Queue::default(),
            look_interval: look::interval(Duration::ZERO, true, false),
            deleted: Deleted::default(),
        }
    }

    /// The daemon starts again; only the regulars have survived.
    pub(super) fn restart(&mut self, jiffies_per_second: u32) {
        self.controller = Controller::new(jiffies_per_second);
        self.rates = OfferedRates::default();
        self.standings = Standings::new(self.standings.regulars().clone());
        self.queue = Queue::default();
    }

    pub(super) fn finish(self) -> Deleted {
        self.deleted
    }

    pub(super) fn decide(&mut self, now: Duration, maps: &Maps) -> Option<Decided> {
        let new_flows = self.controller.wants_new_flows(now).then_some(maps.new_flows);
        let loads = self.controller.wants_loads(now).then(|| maps.look(&mut self.rates, now));
        let admitted = maps.grant.admissions();
        let snapshot = Snapshot {
            now,
            limits: maps.grant.limits(),
            admitted,
            new_flows,
            table: Some(maps.table.sample()),
            loads: loads.as_deref(),
            processors: self.processors,
            reclaimable: self.queue.len(),
            replaceable: self.queue.replaceable(),
            firm: self.queue.firm(),
            deleted: self.deleted.all(),
            look_interval: self.look_interval,
        };
        let decision = self.controller.tick(&snapshot, &self.policy)?;
        Some(Decided { heartbeat: maps.clock.jiffies(now), admitted, decision })
    }

    pub(super) fn write(&mut self, decided: Decided, now: Duration, maps: &mut Maps) -> Written {
        let Decided { heartbeat, admitted: before, decision } = decided;
        maps.limits = decision.limits();
        maps.grant.heartbeat.store(heartbeat.0);
        decision.write_grants(&maps.grant);
        let is_calm = maps.limits.is_calm();
        maps.set_fallback(is_calm, &decision.served);
        let left_calm = self.is_calm && !is_calm;
        if left_calm {
            // Counts of a longer time than a tick are no rates.
            self.rates = OfferedRates::default();
            maps.look(&mut self.rates, now);
        }
        self.is_calm = is_calm;
        let overtaken = decision.are_overtaken(before, maps.grant.admissions());
        let pace = if overtaken { Pace::AtOnce } else { decision.pace };
        self.delete(decision.delete, now, maps);
        Written { pace, changes: decision.changes, left_calm }
    }

    /// Looks at the table; returns the time to the next look.
    pub(super) fn look(&mut self, now: Duration, maps: &mut Maps) -> Duration {
        let table = maps.table.sample();
        let marks = self.standings.marks();
        let mut looking = Looking::new(self.ages, &marks, table.max);
        for entry in maps.table.entries(now) {
            looking.add(&maps.held(entry, now), || Some(entry.handle()));
        }
        let look = looking.finish(true);
        let target_ppm = self.policy.target_ppm;
        let room = parts_room(table, target_ppm);
        self.standings.looked(&look, now, SINCE_1970 + now, self.is_calm, room);
        maps.know(sync(&self.written, &self.standings.known()), &mut self.written);
        self.queue = look.queue;
        self.look_interval =
            look::interval(Self::dump_takes(maps), self.is_calm, table.is_above(target_ppm));
        self.look_interval
    }

    pub(super) fn dump_takes(maps: &Maps) -> Duration {
        DUMPED_IN * u32::try_from(maps.table.count()).unwrap_or(u32::MAX)
    }

    fn delete(&mut self, wanted: u64, now: Duration, maps: &mut Maps) {
        let most = usize::try_from(wanted).unwrap_or(usize::MAX);
        for (class, handle) in self.queue.take(most, wanted > self.queue.len()) {
            if let Some(entry) = maps.table.delete(handle) {
                self.deleted.by_class[class as usize] += 1;
                self.deleted.active += u64::from(entry.is_active(now));
            }
        }
    }
}
