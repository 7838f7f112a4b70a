//! Which CPU works for the router's packets alone, and which ones do everything else.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// How the lab shares out the CPUs it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    router: usize,
    flood: usize,
    others: CpuSet,
    count: usize,
}

impl Cpus {
    /// The last CPU allowed is for the router's packets. The flood has the one before where there are three;
    /// of two, it shares the first with clients and servers.
    pub fn share_out() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read the CPUs allowed")?;
        let mut last_first = (0..CpuSet::MAX_CPU).rev().filter(|&cpu| allowed.is_set(cpu));
        let router = last_first.next().context("no CPU is allowed")?;
        let flood = last_first.next().unwrap_or(router);
        let mut others = allowed;
        let count = usize::try_from(allowed.count()).unwrap_or(usize::MAX);
        if count > 1 {
            others.unset(router);
        }
        if count > 2 {
            others.unset(flood);
        }
        Ok(Self { router, flood, others, count })
    }

    /// Moves this thread, and all that it starts, to the flood's CPU.
    pub fn enter_flood(&self) -> Result<()> {
        sched_setaffinity(None, &only(self.flood)).context("cannot move to the flood's CPU")
    }

    /// Moves this thread, and all that it starts, to the CPUs of clients and servers.
    pub fn enter_others(&self) -> Result<()> {
        sched_setaffinity(None, &self.others).context("cannot move to the clients' CPUs")
    }

    /// Moves a thread of the kernel to the router's CPU, or to those of clients and servers.
    pub(crate) fn place(&self, thread: Pid, in_router: bool) -> Result<()> {
        let cpus = if in_router { only(self.router) } else { self.others };
        sched_setaffinity(Some(thread), &cpus).context("cannot place a thread of the kernel")
    }

    /// How many CPUs the lab may use.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}
