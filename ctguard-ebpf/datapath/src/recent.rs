//! Tuples of known flows that this CPU has seen within this second: nearly every packet finds its
//! own here, in this CPU's cache.
//!
//! The hash selects one slot. It holds the hash's high 36 bits and the coarse time at which it was
//! written, and is valid for that coarse unit, about a second. A newer tuple replaces an older one.

use crate::{hash::low_word, shared::Shared, units::Coarse};

/// Slots of one CPU: 16 KiB, half of the largest per-CPU value (`PCPU_MIN_UNIT_SIZE`).
pub(crate) const SLOTS: usize = 2048;

const TIME: u64 = (1 << 28) - 1;

/// What the slot holds if the tuple was seen in this unit.
#[inline(always)]
pub(crate) const fn mark(hash: u64, now: Coarse) -> u64 {
    hash & !TIME | now.0 as u64 & TIME
}

#[inline(always)]
pub(crate) const fn slot(slots: &[Shared; SLOTS], hash: u64) -> &Shared {
    &slots[low_word(hash) as usize & (SLOTS - 1)]
}
