//! One tick: read, decide, write, in the order that the guarantee rests on.

use std::time::Duration;

use aya::util::nr_cpus;
use ctguard_layout::{CLASSES, Class, Limits, Outcome, Policy, TIERS, units::Jiffies};
use thiserror::Error;

use ctguard_control::{
    ControlPolicy, Controller, Decision, LetIn, OfferedLoad, OfferedRates, Pace, Snapshot,
    StageChange, fallback,
};
use ctguard_kernel::{
    bpf::monotonic,
    conntrack::{Table, TableError},
    maps::{GuardMaps, OpenError, SourceMemory},
};
use ctguard_units::{JiffiesClock, in_force};

#[derive(Debug, Error)]
pub(crate) enum TickError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Maps(#[from] OpenError),
}

#[derive(Debug)]
pub(crate) struct Ticked {
    pub(crate) pace: Pace,
    pub(crate) changes: Vec<StageChange>,
    /// Entries to delete now.
    pub(crate) delete: u64,
}

/// What deleting can give, for a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relief {
    pub(super) reclaimable: u64,
    pub(super) replaceable: u64,
    /// Entries that cannot be deleted at all.
    pub(super) firm: u64,
    pub(super) deleted: u64,
    pub(super) look_interval: Duration,
}

#[derive(Debug)]
pub(crate) struct Ticker {
    controller: Controller,
    offered: OfferedRates,
    /// New flows that processors may be admitting while we count.
    processors: u64,
    counted: Option<Counted>,
    let_in: LetIn,
    /// What was written last.
    limits: Limits,
    /// Read seldom, because only the operator changes them.
    ceilings: Option<(Duration, [u32; CLASSES])>,
    jiffies_per_second: u32,
    clock: JiffiesClock,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    /// A before that.
    admitted: [u64; TIERS],
    new_flows: u64,
}

/// How soon the controller follows when the operator changes a ceiling or a floor.
const POLICY_INTERVAL: Duration = Duration::from_millis(500);

impl Ticker {
    pub(crate) fn new(jiffies: Jiffies, jiffies_per_second: u32, limits: &Limits) -> Self {
        // Without the number, a guess that is too high does little harm.
        let processors = nr_cpus().ok().and_then(|count| u64::try_from(count).ok());
        Self {
            controller: Controller::new(jiffies_per_second),
            offered: OfferedRates::default(),
            processors: processors.unwrap_or(256),
            counted: None,
            let_in: LetIn::default(),
            limits: *limits,
            ceilings: None,
            jiffies_per_second,
            clock: JiffiesClock::new(jiffies, monotonic(), jiffies_per_second),
        }
    }

    pub(crate) fn set_clock(&mut self, jiffies: Jiffies) {
        self.clock = JiffiesClock::new(jiffies, monotonic(), self.jiffies_per_second);
    }

    pub(crate) const fn is_calm(&self) -> bool {
        self.limits.is_calm()
    }

    /// Reads admissions before the table, so that a flow admitted in between is counted twice rather
    /// than not at all.
    pub(crate) fn tick(
        &mut self,
        maps: &GuardMaps,
        sources: &SourceMemory,
        table: &Table,
        relief: Relief,
        guarded: impl Iterator<Item = u32>,
    ) -> Result<Ticked, TickError> {
        let now = monotonic();
        let policy = maps.policy();
        // Comes before the admissions because it takes a while.
        let new_flows = if self.controller.wants_new_flows(now) {
            Some(self.count_new_flows(now, maps, policy.has(Policy::DRY_RUN))?)
        } else {
            None
        };
        let loads = self.controller.wants_loads(now).then(|| self.offered_loads(now, sources));
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
            reclaimable: relief.reclaimable,
            replaceable: relief.replaceable,
            firm: relief.firm,
            deleted: relief.deleted,
            look_interval: relief.look_interval,
        };
        let Some(decision) = self.controller.tick(&snapshot, &control_policy) else {
            return Ok(Ticked { pace: Pace::Calm, changes: Vec::new(), delete: 0 });
        };
        let was_calm = self.is_calm();
        self.write_limits(maps, &decision);
        let grant = &maps.grant;
        grant.heartbeat.store(self.clock.read(now).0);
        decision.write_grants(grant);
        maps.set_exempt(table.max);
        let (is_calm, served) = (self.is_calm(), &decision.served);
        maps.set_fallback(fallback(&policy, table, is_calm, served, self.jiffies_per_second));
        if was_calm && !self.is_calm() {
            // Counts from before pressure began say nothing about the rates.
            self.offered = OfferedRates::default();
            self.offered_loads(now, sources);
        }
        let overtaken = decision.are_overtaken(admitted, maps.grant.admissions());
        let pace = if overtaken { Pace::AtOnce } else { decision.pace };
        Ok(Ticked { pace, changes: decision.changes, delete: decision.delete })
    }

    /// What each source asks for, by tier and class.
    fn offered_loads(&mut self, now: Duration, sources: &SourceMemory) -> Vec<OfferedLoad> {
        self.offered.look(now, sources.offered(), sources.lines(), sources.cells())
    }

    /// Less than A, which also counts packets that follow an admission before its entry exists.
    ///
    /// Copies the counters of every processor, so only after an admission, where what is not
    /// admitted passes too, and once a second. A packet that was in flight at the last count is missed until the next.
    fn count_new_flows(
        &mut self,
        now: Duration,
        maps: &GuardMaps,
        drops_nothing: bool,
    ) -> Result<u64, OpenError> {
        let admitted = maps.grant.admissions();
        if let Some(counted) = self.counted
            && counted.admitted == admitted
            && self.let_in.is_settled(now, drops_nothing)
        {
            return Ok(counted.new_flows);
        }
        let totals = maps.totals()?;
        let (of_flows, others) = (totals.of_all_classes(Outcome::Admitted), totals.not_admitted());
        let new_flows = self.let_in.count(now, of_flows, others, drops_nothing);
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

    fn control_policy(
        &mut self,
        now: Duration,
        maps: &GuardMaps,
        policy: &Policy,
        guarded: impl Iterator<Item = u32>,
    ) -> ControlPolicy {
        let fresh = self.ceilings.filter(|(at, _)| now.saturating_sub(*at) < POLICY_INTERVAL);
        let ceilings = match fresh {
            Some((_, ceilings)) => ceilings,
            None => highest_ceilings(maps, policy, guarded),
        };
        if fresh.is_none() {
            self.ceilings = Some((now, ceilings));
        }
        ControlPolicy::of(policy, ceilings)
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
