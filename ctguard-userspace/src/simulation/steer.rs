//! What a tick of the daemon decides, from the same pure control, and what it writes: the one place
//! that changes when control does.

use std::time::Duration;

use ctguard_ebpf::{
    layout::{Grant, Policy, TIERS},
    units::Jiffies,
};

use crate::control::{InFlight, Pace, Reserve, TableSample, TierGrant, grants};

/// What a tick reads, in this order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) at: Duration,
    pub(super) heartbeat: Jiffies,
    pub(super) new_flows: u64,
    pub(super) admitted: [u64; TIERS],
    pub(super) table: TableSample,
}

/// What it writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    heartbeat: Jiffies,
    admitted: [u64; TIERS],
    grants: [TierGrant; TIERS],
    pace: Pace,
}

/// The daemon's memory between two ticks.
#[derive(Debug)]
pub(super) struct Steering {
    policy: Policy,
    processors: u64,
    in_flight: InFlight,
    reserve: Reserve,
    last: Option<[TierGrant; TIERS]>,
}

impl Steering {
    pub(super) fn new(policy: Policy, processors: u32) -> Self {
        Self {
            policy,
            processors: processors.into(),
            in_flight: InFlight::default(),
            reserve: Reserve::default(),
            last: None,
        }
    }

    pub(super) fn decide(&mut self, reading: &Reading) -> Decision {
        let Reading { at, heartbeat, new_flows, admitted, table } = *reading;
        let target_ppm = self.policy.target_ppm;
        let in_flight = self.in_flight.observe(at, admitted.iter().sum()) + self.processors;
        if self.reserve.is_due(at) {
            self.reserve.observe(at, table, new_flows);
        }
        let reserve = self.reserve.entries(table);
        let grants = grants(table, target_ppm, admitted, in_flight, reserve);
        let spent = self
            .last
            .replace(grants)
            .is_some_and(|last| last.iter().zip(admitted).any(|(last, now)| now >= last.limit));
        let pace = Pace::after(table, target_ppm, spent);
        Decision { heartbeat, admitted, grants, pace }
    }
}

impl Decision {
    /// Writes the grants, and tells when the next tick is due.
    pub(super) fn write(&self, grant: &Grant) -> Pace {
        grant.heartbeat.store(self.heartbeat.0);
        for (allowance, next) in grant.allowances.iter().zip(self.grants) {
            allowance.limit.store(next.limit);
            allowance.wake_at.store(next.wake_at);
        }
        if self.is_overtaken(admitted(grant)) { Pace::AtOnce } else { self.pace }
    }

    /// Whether admissions passed a wake-up mark before it was written.
    fn is_overtaken(&self, after: [u64; TIERS]) -> bool {
        self.grants.iter().zip(self.admitted).zip(after).any(|((grant, before), after)| {
            grant.limit > before && after >= grant.wake_at && after > before
        })
    }
}

/// A, by tier.
pub(super) fn admitted(grant: &Grant) -> [u64; TIERS] {
    grant.admitted.each_ref().map(|tier| tier.0.load())
}
