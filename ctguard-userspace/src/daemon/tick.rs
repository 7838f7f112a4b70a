//! One tick: read, decide, write, in the order that the guarantee rests on.

use aya::util::nr_cpus;
use ctguard_ebpf::{
    layout::{Class, Counter, Policy, TIERS},
    units::Jiffies,
};
use thiserror::Error;

use crate::{
    bpf::monotonic,
    conntrack::{Table, TableError},
    control::{InFlight, JiffiesClock, Pace, Reserve, TableSample, TierGrant, fallback, grants},
    maps::{GuardMaps, OpenError},
};

/// Why a tick did not happen; the heartbeat stays old, and the fallback takes over.
#[derive(Debug, Error)]
pub(crate) enum TickError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Maps(#[from] OpenError),
}

/// What one tick leaves for the next.
#[derive(Debug)]
pub(crate) struct Ticker {
    in_flight: InFlight,
    reserve: Reserve,
    /// New flows that processors may be admitting while we count.
    processors: u64,
    last: Option<[TierGrant; TIERS]>,
    fallback_of: Option<(Policy, u64)>,
    jiffies_per_second: u32,
    clock: JiffiesClock,
}

impl Ticker {
    pub(crate) fn new(jiffies: Jiffies, jiffies_per_second: u32) -> Self {
        // Without the number, a guess that is too high does little harm.
        let processors = nr_cpus().ok().and_then(|count| u64::try_from(count).ok());
        Self {
            in_flight: InFlight::default(),
            reserve: Reserve::default(),
            processors: processors.unwrap_or(256),
            last: None,
            fallback_of: None,
            jiffies_per_second,
            clock: JiffiesClock::new(jiffies, monotonic(), jiffies_per_second),
        }
    }

    /// Sets the clock by the kernel's.
    pub(crate) fn set_clock(&mut self, jiffies: Jiffies) {
        self.clock = JiffiesClock::new(jiffies, monotonic(), self.jiffies_per_second);
    }

    /// Reads admissions first and the table after them, so that what is admitted in between is
    /// counted twice and never not at all.
    pub(crate) fn tick(&mut self, maps: &GuardMaps, table: &Table) -> Result<Pace, TickError> {
        let now = monotonic();
        // Before the two, for it takes a while: every processor's counters are copied.
        let new_flows = if self.reserve.is_due(now) { Some(new_flows(maps)?) } else { None };
        let admitted = admitted(maps);
        let table = table.sample()?;
        let policy = maps.policy()?;

        let grant = &maps.grant;
        grant.heartbeat.store(self.clock.read(now).0);
        self.write_fallback(maps, &policy, table);

        let total = admitted.iter().sum();
        let in_flight = self.in_flight.observe(now, total) + self.processors;
        if let Some(new_flows) = new_flows {
            self.reserve.observe(now, table, new_flows);
        }
        let reserve = self.reserve.entries(table);
        let grants = grants(table, policy.target_ppm, admitted, in_flight, reserve);
        for (allowance, next) in grant.allowances.iter().zip(grants) {
            allowance.limit.store(next.limit);
            allowance.wake_at.store(next.wake_at);
        }
        let spent = self
            .last
            .replace(grants)
            .is_some_and(|last| last.iter().zip(admitted).any(|(last, now)| now >= last.limit));
        if overtaken(maps, admitted, grants) {
            return Ok(Pace::AtOnce);
        }
        Ok(Pace::after(table, policy.target_ppm, spent))
    }

    fn write_fallback(&mut self, maps: &GuardMaps, policy: &Policy, table: TableSample) {
        if self.fallback_of == Some((*policy, table.max)) {
            return;
        }
        maps.set_fallback(fallback(policy, table, self.jiffies_per_second));
        self.fallback_of = Some((*policy, table.max));
    }
}

fn admitted(maps: &GuardMaps) -> [u64; TIERS] {
    maps.grant.admitted.each_ref().map(|tier| tier.0.load())
}

/// Less than A, which counts packets too that rest on an admission nobody answered yet.
fn new_flows(maps: &GuardMaps) -> Result<u64, OpenError> {
    let totals = maps.totals()?;
    Ok(Class::ALL.into_iter().map(|class| totals.get(Counter::Admitted(class))).sum())
}

/// Whether admissions passed a wake-up mark before it was written, so that nobody wakes us.
fn overtaken(maps: &GuardMaps, before: [u64; TIERS], grants: [TierGrant; TIERS]) -> bool {
    let after = admitted(maps);
    grants.iter().zip(before).zip(after).any(|((grant, before), after)| {
        grant.limit > before && after >= grant.wake_at && after > before
    })
}
