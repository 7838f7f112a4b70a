//! Tuples that this CPU has seen go on in the running coarse unit: what nearly every packet finds,
//! in memory that stays near.
//!
//! One slot is picked by the hash; it holds the hash's high 36 bits and the coarse time at which it
//! was written, and counts for that unit alone, about a second. Who comes last has the slot.

use crate::{hash::low_word, shared::Shared, units::Coarse};

pub use crate::layout::RECENT_SLOTS as SLOTS;

const TIME: u64 = (1 << 28) - 1;

/// What the slot of a tuple holds in this unit.
#[inline(always)]
#[must_use]
pub const fn mark(hash: u64, now: Coarse) -> u64 {
    hash & !TIME | now.0 as u64 & TIME
}

/// The slot of a tuple.
#[inline(always)]
#[must_use]
pub const fn slot(slots: &[Shared; SLOTS], hash: u64) -> &Shared {
    &slots[low_word(hash) as usize & (SLOTS - 1)]
}
