//! Counters up, the daemon awake.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use ctguard_layout::{COUNTERS, Counters, units::Jiffies};

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

    /// Adds one to the counter at `index`.
    #[inline(always)]
    pub(crate) fn add(self, index: u32) {
        let index = index as usize & (COUNTERS - 1);
        // SAFETY: the pointer is this CPU's value of the map, which lives as long as the program;
        // nothing else runs on this CPU meanwhile but a nested program, which may only add. The
        // index lies below the array's length.
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
