//! The cache lines of the large maps: flow cache, known sources, buckets and memories.

use super::{
    grant::Tier,
    policy::{CLASS_SLOTS, Class},
};
use crate::shared::{Shared, SharedWord};

/// Remembered flows; see `flow::slot` for the bits.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct FlowLine {
    /// Remembered flows; zero is an empty slot.
    pub slots: [Shared; Self::SLOTS],
}

impl FlowLine {
    /// Slots in a line.
    pub const SLOTS: usize = 8;
}

/// Tuples or sources that are remembered for seconds; see `memory` for the bits.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct MemoryLine {
    /// The position written last, then what is remembered.
    pub words: [SharedWord; Self::WORDS],
}

impl MemoryLine {
    /// Words in a line.
    pub const WORDS: usize = 16;
}

/// Senders that may come again, in batches; see `retries` for the bits.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct RetryLine {
    /// Batches; one without senders is free.
    pub words: [Shared; Self::BATCHES],
}

impl RetryLine {
    /// Batches in a line.
    pub const BATCHES: usize = 8;
}

/// Known sources; see `sources` for the bits.
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

/// The cells of the one known source in a slot.
#[repr(C, align(8))]
#[derive(Debug, Default)]
pub struct SourceCells {
    /// Theoretical arrival times by class, in ticks; the last for [`Class::ANSWERED`].
    pub arrivals: [Shared; CLASS_SLOTS],
    /// New flows offered outside calm, by class.
    pub offered: [SharedWord; CLASS_SLOTS],
}

/// GCRA cells of a scope.
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

/// Offered load of the sources that share a [`BucketLine`], sampled and scaled up. If two CPUs
/// count at once, one count may be lost.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct OfferedSlot {
    /// The source seen last: an IPv4 address or the upper half of an IPv6 address.
    pub address: Shared,
    /// New flows of strangers, also challenged ones, by class, in multiples of the sample.
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
    /// One new flow in so many is sampled.
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

const _: () = assert!(size_of::<FlowLine>() == 64 && size_of::<MemoryLine>() == 64);
const _: () = assert!(size_of::<RetryLine>() == 64);
const _: () = assert!(size_of::<SourceLine>() == 64 && size_of::<SourceCells>() == 48);
const _: () = assert!(size_of::<BucketLine>() == 64 && size_of::<OfferedSlot>() == 32);
