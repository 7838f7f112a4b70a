//! Counters up, the daemon awake.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use ctguard_datapath::{recent, verdict::Verdict};
use ctguard_layout::{
    COUNTERS, Counter, Counters, OfferedSlot, SCRATCH_WORDS, shared::Shared, units::Jiffies,
};

use super::maps;

/// This CPU's counters.
#[derive(Clone, Copy)]
pub(crate) struct CpuCounters(*mut Counters);

impl CpuCounters {
    /// The line of the CPU that runs.
    #[inline(always)]
    pub(crate) fn of_this_cpu() -> Option<Self> {
        maps::COUNTERS.get_ptr_mut(0).map(Self)
    }

    /// Counts what a verdict says.
    #[inline(always)]
    pub(crate) fn count(self, verdict: &Verdict) {
        self.add_at(verdict.counter);
        if verdict.seen != Verdict::NONE {
            self.add_at(verdict.seen);
        }
        if verdict.allowed != Verdict::NONE {
            self.add_at(verdict.allowed);
        }
    }

    /// Whether the next new flow is one of those whose offered load is written down.
    #[inline(always)]
    pub(crate) fn samples(self) -> bool {
        // SAFETY: the pointer is this CPU's value of the map, which lives as long as the program;
        // nothing else runs on this CPU meanwhile but a nested program, which may only add.
        let values = unsafe { &(*self.0).values };
        let seen = values[0].wrapping_add(values[1]).wrapping_add(values[2]);
        seen % u64::from(OfferedSlot::SAMPLE) == 0
    }

    /// This CPU's recent tuples.
    #[inline(always)]
    pub(crate) fn recent<'l>(self) -> &'l [Shared; recent::SLOTS] {
        // SAFETY: as above; a `Shared` is an aligned `u64` that may change under a reference.
        unsafe { &*(&raw const (*self.0).recent).cast() }
    }

    /// This CPU's scratch memory.
    #[inline(always)]
    pub(crate) fn scratch<'l>(self) -> &'l [Shared; SCRATCH_WORDS] {
        // SAFETY: as above.
        unsafe { &*(&raw const (*self.0).scratch).cast() }
    }

    #[inline(always)]
    pub(crate) fn add(self, counter: Counter) {
        self.add_at(counter.index());
    }

    #[inline(always)]
    fn add_at(self, index: u32) {
        let index = index as usize & (COUNTERS - 1);
        // SAFETY: as above, and the index lies below the array's length.
        unsafe {
            let value = (&raw mut (*self.0).values).cast::<u64>().add(index);
            *value = (*value).wrapping_add(1);
        }
    }
}

/// Wakes the daemon. A full ring needs no more: it is awake then.
#[inline(always)]
pub(crate) fn wake_daemon(now: Jiffies) {
    let _ = maps::WAKEUPS.output(now.0, BPF_RB_FORCE_WAKEUP.into());
}
