//! Which CPU makes the flood, and which ones do everything else.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How the lab shares out the CPUs it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    flood: usize,
    allowed: CpuSet,
}

impl Cpus {
    /// The last CPU of those allowed makes the flood.
    pub fn share_out() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read the CPUs allowed")?;
        let flood = (0..CpuSet::MAX_CPU).rev().find(|&cpu| allowed.is_set(cpu));
        Ok(Self { flood: flood.context("no CPU is allowed")?, allowed })
    }

    /// The CPU of the flood.
    #[must_use]
    pub fn flood(&self) -> usize {
        self.flood
    }

    /// Moves this thread, and all that it starts, to the flood's CPU.
    pub fn enter_flood(&self) -> Result<()> {
        let mut only = CpuSet::new();
        only.set(self.flood);
        sched_setaffinity(None, &only).context("cannot move to the flood's CPU")
    }

    /// Moves this thread, and all that it starts, away from the flood's CPU; on a machine with a
    /// single CPU nothing changes.
    pub fn leave_flood(&self) -> Result<()> {
        let mut others = self.allowed;
        if others.count() > 1 {
            others.unset(self.flood);
        }
        sched_setaffinity(None, &others).context("cannot leave the flood's CPU")
    }

    /// How many CPUs the lab may use.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.allowed.count()).unwrap_or(usize::MAX)
    }
}
