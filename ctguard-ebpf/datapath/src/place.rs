//! Where something lies in a table of lines: in one of the two that its hash names.

use crate::{blur::Blur, hash::low_word};

/// A place in a table.
#[derive(Clone, Copy)]
pub struct Place {
    pub(crate) hash: u64,
    pub(crate) first: u32,
    pub(crate) second: u32,
    pub(crate) blur: Blur,
}

impl Place {
    /// The two lines that may hold what has this hash, the number of lines being a power of two.
    #[inline(always)]
    #[must_use]
    pub const fn of(hash: u64, line_mask: u32, blur: Blur) -> Self {
        let first = low_word(hash) & line_mask;
        // The fingerprint's own bits pick the second line, so that what shares the first line does
        // not share both.
        let second = first ^ (low_word(hash >> 40) | 1) & line_mask;
        Self { hash, first, second, blur }
    }
}
