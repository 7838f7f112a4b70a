//! One tick: read, decide, write, in the order that the guarantee rests on.

use std::time::Duration;

use aya::util::nr_cpus;
use ctguard_layout::{CLASSES, Class, Limits, Outcome, Policy, TIERS, units::Jiffies};
use thiserror::Error;

use super::offered::Offered;
use ctguard_control::{ControlPolicy, Controller, Decision, Pace, Snapshot, StageChange, fallback};
use ctguard_kernel::{
    bpf::monotonic,
    conntrack::{Table, TableError},
    maps::{GuardMaps, OpenError, SourceMemory},
};
use ctguard_units::{JiffiesClock, TableSample, in_force};

/// Why a tick did not happen; the heartbeat stays old, and the fallback takes over.
#[derive(Debug, Error)]
pub(crate) enum TickError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Maps(#[from] OpenError),
}

/// What came of a tick.
#[derive(Debug)]
pub(crate) struct Ticked {
    pub(crate) pace: Pace,
    pub(crate) changes: Vec<StageChange>,
}

/// What one tick leaves for the next.
#[derive(Debug)]
pub(crate) struct Ticker {
    controller: Controller,
    offered: Offered,
    /// New flows that processors may be admitting while we count.
    processors: u64,
    counted: Option<Counted>,
    /// What was written last.
    limits: Limits,
    fallback_of: Option<(Policy, u64, bool)>,
    /// Ceilings change only by an operator's hand, so they are looked at seldom.
    ceilings: Option<(Duration, ControlPolicy)>,
    reclaim: Option<f64>,
    jiffies_per_second: u32,
    clock: JiffiesClock,
}

/// New flows as they were counted last.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// A before that.
    admitted: [u64; TIERS],
    new_flows: u64,
}

/// How soon an operator's change of a ceiling or a floor steers the shares.
const POLICY_INTERVAL: Duration = Duration::from_millis(500);

impl Ticker {
    pub(crate) fn new(jiffies: Jiffies, jiffies_per_second: u32, limits: &Limits) -> Self {
        // Without the number, a guess that is too high does little harm.
        let processors = nr_cpus().ok().and_then(|count| u64::try_from(count).ok());
        Self {
            controller: Controller::new(jiffies_per_second),
            offered: Offered::default(),
            processors: processors.unwrap_or(256),
            counted: None,
            limits: *limits,
            fallback_of: None,
            ceilings: None,
            reclaim: None,
            jiffies_per_second,
            clock: JiffiesClock::new(jiffies, monotonic(), jiffies_per_second),
        }
    }

    /// Sets the clock by the kernel's.
    pub(crate) fn set_clock(&mut self, jiffies: Jiffies) {
        self.clock = JiffiesClock::new(jiffies, monotonic(), self.jiffies_per_second);
    }

    /// Whether every class is calm.
    pub(crate) const fn is_calm(&self) -> bool {
        self.limits.is_calm()
    }

    /// Entries a second that are to be deleted from the table.
    pub(crate) const fn reclaim(&self) -> Option<f64> {
        self.reclaim
    }

    /// Reads admissions first and the table after them, so that what is admitted in between is
    /// counted twice and never not at all.
    pub(crate) fn tick(
        &mut self,
        maps: &GuardMaps,
        sources: &SourceMemory,
        table: &Table,
        guarded: impl Iterator<Item = u32>,
    ) -> Result<Ticked, TickError> {
        let now = monotonic();
        // Before the two, for they take a while.
        let new_flows = if self.controller.wants_new_flows(now) {
            Some(self.count_new_flows(maps)?)
        } else {
            None
        };
        let loads = self.controller.wants_loads(now).then(|| self.offered.look(now, sources));
        let policy = maps.policy();
        let control_policy = self.control_policy(now, maps, &policy, guarded);
        let limits = maps.grant.limits();
        let admitted = maps.grant.admissions();
        let table = table.sample()?;

        let snapshot = Snapshot {
            now,
            limits,
            admitted,
            new_flows,
            table: Some(table),
            loads: loads.as_deref(),
            processors: self.processors,
        };
        let Some(decision) = self.controller.tick(&snapshot, &control_policy) else {
            return Ok(Ticked { pace: Pace::Calm, changes: Vec::new() });
        };
        let was_calm = self.is_calm();
        self.write_limits(maps, &decision);
        let grant = &maps.grant;
        grant.heartbeat.store(self.clock.read(now).0);
        decision.write_grants(grant);
        self.write_fallback(maps, &policy, table);
        if was_calm && !self.is_calm() {
            // What was counted before is no rate.
            self.offered.begin(now, sources);
        }
        self.reclaim = decision.reclaim;
        let overtaken = decision.are_overtaken(admitted, maps.grant.admissions());
        let pace = if overtaken { Pace::AtOnce } else { decision.pace };
        Ok(Ticked { pace, changes: decision.changes })
    }

    /// Less than A, which counts packets too that rest on an admission nobody answered yet.
    ///
    /// Every processor's counters are copied for it, so not while nothing was admitted: a packet
    /// that was under way at the last count is then missed until the next admission.
    fn count_new_flows(&mut self, maps: &GuardMaps) -> Result<u64, OpenError> {
        let admitted = maps.grant.admissions();
        if let Some(counted) = self.counted.filter(|counted| counted.admitted == admitted) {
            return Ok(counted.new_flows);
        }
        let new_flows = maps.totals()?.of_all_classes(Outcome::Admitted);
        self.counted = Some(Counted { admitted, new_flows });
        Ok(new_flows)
    }

    /// Stages and shares, before the grants that were made with them in view.
    fn write_limits(&mut self, maps: &GuardMaps, decision: &Decision) {
        let limits = decision.limits();
        if limits != self.limits {
            maps.set_limits(&limits);
            self.limits = limits;
        }
    }

    fn write_fallback(&mut self, maps: &GuardMaps, policy: &Policy, table: TableSample) {
        let calm = self.is_calm();
        if self.fallback_of == Some((*policy, table.max, calm)) {
            return;
        }
        maps.set_fallback(fallback(policy, table, calm, self.jiffies_per_second));
        self.fallback_of = Some((*policy, table.max, calm));
    }

    fn control_policy(
        &mut self,
        now: Duration,
        maps: &GuardMaps,
        policy: &Policy,
        guarded: impl Iterator<Item = u32>,
    ) -> ControlPolicy {
        let fresh = self.ceilings.filter(|(at, _)| now.saturating_sub(*at) < POLICY_INTERVAL);
        let ceilings = match fresh {
            Some((_, known)) => known.ceilings,
            None => highest_ceilings(maps, policy, guarded),
        };
        let control_policy = ControlPolicy {
            target_ppm: policy.target_ppm,
            ceilings,
            floors: policy.floor,
            reclaim: !policy.has(Policy::NO_RECLAIM),
        };
        if fresh.is_none() {
            self.ceilings = Some((now, control_policy));
        }
        control_policy
    }
}

/// The most that a source may open, on the interface where it is highest.
fn highest_ceilings(
    maps: &GuardMaps,
    policy: &Policy,
    guarded: impl Iterator<Item = u32>,
) -> [u32; CLASSES] {
    let mut ceilings = policy.source.map(|rate| rate.flows_per_second);
    for ifindex in guarded {
        let Some(slot) = maps.interfaces.of(ifindex) else { continue };
        for class in Class::ALL {
            let class = class as usize;
            let rate = in_force(policy.source[class], slot.interface.overrides[class]);
            ceilings[class] = ceilings[class].max(rate.flows_per_second);
        }
    }
    ceilings
}
