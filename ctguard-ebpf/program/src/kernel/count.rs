//! Counts, and wakes the daemon.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use ctguard_layout::{COUNTERS, Counters, Refuser, units::Jiffies};

use super::maps;

#[derive(Clone, Copy)]
pub(crate) struct CpuCounters(*mut Counters);

impl CpuCounters {
    #[inline(always)]
    pub(crate) fn of_this_cpu() -> Option<Self> {
        maps::COUNTERS.get_ptr_mut(0).map(Self)
    }

    /// Adds one to the counter at `index`.
    #[inline(always)]
    pub(crate) fn add(self, index: u32) {
        let index = index as usize & (COUNTERS - 1);
        // SAFETY: the pointer is this CPU's value of the map, which lives as long as the program.
        // Only a nested program runs on this CPU meanwhile, and it only adds. The index is below
        // the array's length.
        unsafe {
            let value = (&raw mut (*self.0).values).cast::<u64>().add(index);
            *value = (*value).wrapping_add(1);
        }
    }
}

/// Counts a packet that is denied, by these feeds or else by the operator.
#[inline(always)]
pub(crate) fn count_refusal(feeds: u32) {
    let Some(refusals) = maps::REFUSALS.get_ptr_mut(Refuser::place(feeds)) else { return };
    // SAFETY: as in `CpuCounters::add`.
    unsafe { *refusals = (*refusals).wrapping_add(1) };
}

/// Wakes the daemon. If the ring is full, it is awake already.
#[inline(always)]
pub(crate) fn wake_daemon(now: Jiffies) {
    let _ = maps::WAKEUPS.output(now.0, BPF_RB_FORCE_WAKEUP.into());
}
