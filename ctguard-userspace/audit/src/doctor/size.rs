//! How large a table should be and what it costs: doctor judges by it, and tune sets what it says.

use crate::host::{EntrySize, Memory};

/// The share of its maximum from which a table counts as nearly full; `node_exporter`'s alerts warn
/// at 75 % and page at 90 %.
pub const NEARLY_FULL: f64 = 0.75;
pub(super) const FILL: [f64; 2] = [NEARLY_FULL, 0.9];
/// The least for a router with a gibibyte of memory or more.
pub const LEAST_OF_ROUTER: u64 = 1 << 16;
pub const BUCKET_BYTES: u64 = 8;
/// More entries than this for each bucket make long chains.
pub(super) const MOST_PER_BUCKET: u64 = 4;

/// Whether a machine has a gibibyte, part of which its kernel and firmware keep for themselves.
pub const fn has_gibibyte(memory: Memory) -> bool {
    memory.total_bytes >= (1 << 30) / 100 * 95
}

/// What so many entries take: 15 % more than their size, in slabs that are not full.
pub fn entries_bytes(entries: u64, entry: &EntrySize) -> u64 {
    let bytes = u128::from(entries) * u128::from(entry.bytes) * 115 / 100;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
