//! What a running guard has counted, read from its pinned maps: cheap enough to ask after each
//! packet.

use std::path::Path;

use anyhow::Result;
use ctguard_kernel::{bpf::Pins, maps::GuardMaps};
use ctguard_layout::{COUNTERS, Class, Counter, Group, Outcome};

/// A guard's counters and its grant.
pub struct Pinned(GuardMaps);

/// Sums at one time, or what was added between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    values: [u64; COUNTERS],
    /// Taken from the grant, by all tiers together.
    pub taken: u64,
}

impl Pinned {
    /// Opens the maps pinned in this directory.
    pub fn open(pins: &Path) -> Result<Self> {
        Ok(Self(GuardMaps::open(&Pins::at(pins))?))
    }

    /// When the daemon ticked last, in jiffies.
    #[must_use]
    pub fn heartbeat(&self) -> u64 {
        self.0.grant.heartbeat.load()
    }

    /// Jiffies in a second.
    #[must_use]
    pub fn jiffies_per_second(&self) -> u32 {
        self.0.environment().daemon.jiffies_per_second
    }

    /// What was counted until now.
    pub fn counts(&self) -> Result<Counts> {
        let (totals, mut values) = (self.0.totals()?, [0; COUNTERS]);
        for counter in Counter::all() {
            values[counter.index() as usize] = totals.get(counter);
        }
        let taken = self.0.grant.admitted.iter().map(|admissions| admissions.0.load()).sum();
        Ok(Counts { values, taken })
    }

    /// Ends the time in which a new guard takes unknown TCP connections for older than itself.
    pub fn end_learning(&self) {
        self.0.change_facts(|facts| facts.learning_until = 0);
    }
}

impl Counts {
    /// Of one counter.
    #[must_use]
    pub fn of(&self, counter: Counter) -> u64 {
        self.values[counter.index() as usize]
    }

    /// New flows refused, for whatever reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let is_refusal = |counter: &Counter| match counter {
            Counter::Flows(outcome, _) => outcome.row().group == Group::Refused,
            Counter::Packets(_) | Counter::Allowed(_) | Counter::Wakeups => false,
        };
        Counter::all().filter(is_refusal).map(|counter| self.of(counter)).sum()
    }

    /// Packets judged: each is counted in one of these.
    #[must_use]
    pub fn judged(&self) -> u64 {
        let besides = |counter| matches!(counter, Counter::Allowed(_) | Counter::Wakeups);
        let outcomes = Counter::all().filter(|counter| !besides(*counter));
        outcomes.map(|counter| self.of(counter)).sum()
    }

    /// Takes off one new flow that was admitted; false where there is none.
    pub fn take_admitted(&mut self, class: Class) -> bool {
        let counter = Counter::Flows(Outcome::Admitted, class);
        let is_there = self.taken > 0 && self.of(counter) > 0;
        if is_there {
            self.taken -= 1;
            self.values[counter.index() as usize] -= 1;
        }
        is_there
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut values = self.values;
        values.iter_mut().zip(earlier.values).for_each(|(now, then)| *now -= then);
        Self { values, taken: self.taken - earlier.taken }
    }
}
