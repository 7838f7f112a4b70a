//! The cells that count for the source scope, and what was offered to them.

use crate::shared::Shared;

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
/// [`OfferedSlot::SAMPLE`] and scaled up.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct OfferedSlot {
    /// New flows seen, in multiples of the sample.
    pub offered: Shared,
    /// New flows refused, in multiples of the sample.
    pub refused: Shared,
    /// The source seen last: an IPv4 address, or the upper half of an IPv6 address, as a number.
    pub address: Shared,
    /// When it was seen and as what: jiffies · 256 + family (4 or 6) · 16 + class.
    pub last: Shared,
}

impl OfferedSlot {
    /// One new flow in so many is written down.
    pub const SAMPLE: u64 = 16;
}

const _: () = assert!(size_of::<BucketLine>() == 64);
const _: () = assert!(size_of::<OfferedSlot>() == 32);
