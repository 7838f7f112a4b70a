//! The cells that count for the source scope, and what was offered to them.

use super::{
    grant::Tier,
    policy::{CLASS_SLOTS, Class},
};
use crate::shared::{Shared, SharedWord};

/// One cache line of GCRA cells.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct BucketLine {
    /// Theoretical arrival times, in ticks.
    pub arrivals: [Shared; Self::CELLS],
}

impl BucketLine {
    /// Cells in a line.
    pub const CELLS: usize = 8;
}

/// Offered load of the sources that share a [`BucketLine`]; counted on one new flow in
/// [`OfferedSlot::SAMPLE`] and scaled up. Two CPUs that count at once may count one for two.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct OfferedSlot {
    /// The source seen last: an IPv4 address, or the upper half of an IPv6 address, as a number.
    pub address: Shared,
    /// New flows of strangers, by class, in multiples of the sample; challenged ones too.
    pub offered: [SharedWord; CLASS_SLOTS],
    /// New flows of tuples that had answered a challenge.
    pub answered: SharedWord,
    /// New flows of tuples that had come again.
    pub retried: SharedWord,
}

/// A new flow that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The source, as its scope has it.
    pub address: u64,
    /// 4 or 6.
    pub family: u32,
    /// The number of its [`Class`].
    pub class: u32,
    /// The number of the [`Tier`] in which it asked to be admitted.
    pub tier: u32,
}

impl OfferedSlot {
    /// One new flow in so many is written down.
    pub const SAMPLE: u32 = 16;

    /// Notes a sample.
    #[inline(always)]
    pub fn note(&self, offered: &Offered) {
        let count = if offered.tier == Tier::Answered as u32 {
            &self.answered
        } else if offered.tier == Tier::Retried as u32 {
            &self.retried
        } else {
            &self.offered[Class::slot(offered.class)]
        };
        count.add(Self::SAMPLE);
        self.address.store(offered.address);
    }
}

const _: () = assert!(size_of::<BucketLine>() == 64);
const _: () = assert!(size_of::<OfferedSlot>() == 32);
