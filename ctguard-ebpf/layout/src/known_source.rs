//! The sources that are known one by one: regulars and proven ones.

use super::policy::CLASS_SLOTS;
use crate::shared::{Shared, SharedWord};

/// One cache line of known sources; `sources` tells what the bits mean.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SourceLine {
    /// Known sources; zero is a free slot.
    pub slots: [Shared; Self::SLOTS],
}

impl SourceLine {
    /// Slots in a line.
    pub const SLOTS: usize = 8;
}

/// What is counted for the source in one slot, and for no other.
#[repr(C, align(8))]
#[derive(Debug, Default)]
pub struct SourceCells {
    /// Theoretical arrival times by class, in ticks.
    pub arrivals: [Shared; CLASS_SLOTS],
    /// New flows offered while tiers are told apart, by class.
    pub offered: [SharedWord; CLASS_SLOTS],
}

const _: () = assert!(size_of::<SourceLine>() == 64);
const _: () = assert!(size_of::<SourceCells>() == 48);
