//! The two lines of a table in which an item may lie, selected by its hash.

use crate::{hash::low_word, verifier::OpaqueZero};

/// The two lines of one hash.
#[derive(Clone, Copy)]
pub struct Place {
    pub(crate) hash: u64,
    pub(crate) first: u32,
    pub(crate) second: u32,
    pub(crate) zero: OpaqueZero,
}

impl Place {
    /// The lines of `hash` in a table of `line_mask` + 1 lines, a power of two.
    #[inline(always)]
    pub const fn of(hash: u64, line_mask: u32, zero: OpaqueZero) -> Self {
        let first = low_word(hash) & line_mask;
        // From other bits than the first, so that two hashes which share one line rarely share
        // both.
        let second = first ^ (low_word(hash >> 40) | 1) & line_mask;
        Self { hash, first, second, zero }
    }
}
