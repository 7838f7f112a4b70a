//! The daemon's ticks, with its controller.

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
    pub(super) is_calm: bool,
    /// Entries to delete per second.
    pub(super) reclaim: Option<f64>,
    policy: ControlPolicy,
    processors: u64,
    controller: Controller,
    rates: OfferedRates,
    regulars: Vec<SourceScope>,
    known: KnownSources,
}

impl Steering {
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

    /// The daemon starts again; only the known sources have survived.
    pub(super) fn restart(&mut self, jiffies_per_second: u32) {
        self.controller = Controller::new(jiffies_per_second);
        self.rates = OfferedRates::default();
        self.reclaim = None;
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
            reclaimable: 0,
            replaceable: 0,
            deleted: 0,
            look_interval: Duration::from_millis(500),
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
        let left_calm = self.is_calm && !is_calm;
        if left_calm {
            // Counts of a longer time than a tick are no rates.
            self.rates = OfferedRates::default();
            maps.look(&mut self.rates, now);
        }
        if self.is_calm != is_calm {
            maps.set_fallback(is_calm);
        }
        self.is_calm = is_calm;
        self.reclaim = Some(0.0).filter(|_| decision.delete > 0);
        let overtaken = decision.are_overtaken(before, maps.grant.admissions());
        let pace = if overtaken { Pace::AtOnce } else { decision.pace };
        Written { pace, changes: decision.changes, left_calm }
    }

    /// Writes regulars and holders of connections into the set of known sources.
    pub(super) fn learn(&mut self, holders: impl Iterator<Item = SourceScope>, maps: &Maps) {
        let wanted = known(self.regulars.iter().copied(), holders);
        maps.know(sync(&self.known, &wanted), &mut self.known);
    }
}
