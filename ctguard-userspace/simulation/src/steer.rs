//! The daemon's part: what a tick reads, decides and writes, by the controller that the daemon runs.

use std::time::Duration;

use ctguard_layout::{Policy, TIERS, units::Jiffies};

use super::tables::Maps;
use ctguard_control::{
    ControlPolicy, Controller, Decision, OfferedRates, Pace, Snapshot, StageChange,
    sources::{KnownSources, SourceScope, known, sync},
};

/// What a tick decided, until it is written.
#[derive(Debug)]
pub(super) struct Decided {
    heartbeat: Jiffies,
    admitted: [u64; TIERS],
    decision: Decision,
}

/// What came of writing it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) pace: Pace,
    pub(super) changes: Vec<StageChange>,
    pub(super) left_calm: bool,
}

/// The daemon's memory between two ticks.
#[derive(Debug)]
pub(super) struct Steering {
    policy: ControlPolicy,
    processors: u64,
    controller: Controller,
    rates: OfferedRates,
    is_calm: bool,
    reclaim: Option<f64>,
    regulars: Vec<SourceScope>,
    known: KnownSources,
}

impl Steering {
    /// Of a daemon that has learnt these regulars in calm times before.
    pub(super) fn new(
        policy: Policy,
        processors: u32,
        jiffies_per_second: u32,
        regulars: Vec<SourceScope>,
    ) -> Self {
        Self {
            policy: ControlPolicy {
                target_ppm: policy.target_ppm,
                ceilings: policy.source.map(|rate| rate.flows_per_second),
                floors: policy.floor,
                reclaim: !policy.has(Policy::NO_RECLAIM),
            },
            processors: processors.into(),
            controller: Controller::new(jiffies_per_second),
            rates: OfferedRates::default(),
            is_calm: true,
            reclaim: None,
            regulars,
            known: KnownSources::new(),
        }
    }

    /// The same daemon, started anew: what it has not written down is gone.
    pub(super) fn restart(&mut self, jiffies_per_second: u32) {
        self.controller = Controller::new(jiffies_per_second);
        self.rates = OfferedRates::default();
        self.reclaim = None;
    }

    pub(super) const fn is_calm(&self) -> bool {
        self.is_calm
    }

    /// Entries a second that are to be deleted.
    pub(super) const fn reclaim(&self) -> Option<f64> {
        self.reclaim
    }

    pub(super) fn decide(
        &mut self,
        now: Duration,
        heartbeat: Jiffies,
        maps: &Maps,
    ) -> Option<Decided> {
        let new_flows = self.controller.wants_new_flows(now).then(|| maps.new_flows());
        let loads = self.controller.wants_loads(now).then(|| maps.look(&mut self.rates, now));
        let admitted = maps.grant.admissions();
        let snapshot = Snapshot {
            now,
            limits: maps.grant.limits(),
            admitted,
            new_flows,
            table: Some(maps.table.borrow().sample()),
            loads: loads.as_deref(),
            processors: self.processors,
        };
        let decision = self.controller.tick(&snapshot, &self.policy)?;
        Some(Decided { heartbeat, admitted, decision })
    }

    pub(super) fn write(&mut self, decided: Decided, now: Duration, maps: &mut Maps) -> Written {
        let Decided { heartbeat, admitted: before, decision } = decided;
        maps.limits = decision.limits();
        maps.grant.heartbeat.store(heartbeat.0);
        decision.write_grants(&maps.grant);
        let is_calm = maps.limits.is_calm();
        let left_calm = self.is_calm && !is_calm;
        if left_calm {
            // What was counted before is no rate.
            self.rates = OfferedRates::default();
            maps.look(&mut self.rates, now);
        }
        if self.is_calm != is_calm {
            maps.set_fallback(is_calm);
        }
        self.is_calm = is_calm;
        self.reclaim = decision.reclaim;
        let overtaken = decision.are_overtaken(before, maps.grant.admissions());
        let pace = if overtaken { Pace::AtOnce } else { decision.pace };
        Written { pace, changes: decision.changes, left_calm }
    }

    /// Makes known who is regular, and who holds a connection that it opened.
    pub(super) fn learn(&mut self, holders: impl Iterator<Item = SourceScope>, maps: &Maps) {
        let wanted = known(self.regulars.iter().copied(), holders);
        maps.know(sync(&self.known, &wanted), &mut self.known);
    }
}
