//! How large a table should be and what it costs: doctor judges by it, and tune sets what it says.

use super::text::share;
use crate::host::{EntrySize, Memory};

/// The share of its maximum from which a table counts as nearly full; `node_exporter`'s alerts warn
/// at 75 % and page at 90 %.
pub const NEARLY_FULL: f64 = 0.75;
pub(super) const FILL: [f64; 2] = [NEARLY_FULL, 0.9];
/// The share of the available memory that a full table may not take.
pub(super) const MEMORY: [f64; 2] = [0.25, 0.5];
/// The least for a router with a gibibyte of memory or more.
pub const LEAST_OF_ROUTER: u64 = 1 << 16;
pub const BUCKET_BYTES: u64 = 8;
/// More entries than this for each bucket make long chains.
pub(super) const MOST_PER_BUCKET: u64 = 4;
/// In a wider hash, the kernel often finds nothing to replace in a full table.
const LEAST_CHANCE: f64 = 0.9;

/// Whether a machine has a gibibyte, part of which its kernel and firmware keep for themselves.
pub const fn has_gibibyte(memory: Memory) -> bool {
    memory.total_bytes >= (1 << 30) / 100 * 95
}

/// The chance that the kernel finds an entry to replace in a full table, if it may replace all:
/// `early_drop` searches eight buckets, and each entry is in the hash twice
/// (`net/netfilter/nf_conntrack_core.c`).
pub(super) fn replacement_chance(max: u64, buckets: u64) -> f64 {
    1.0 - (-16.0 * share(max, buckets)).exp()
}

/// Whether a hash is so wide for a maximum that new flows fail that need not.
pub fn is_too_wide(max: u64, buckets: u64) -> bool {
    max > 0 && replacement_chance(max, buckets) < LEAST_CHANCE
}

/// A maximum at or below this would be reached at once.
pub const fn with_margin(count: u64) -> u64 {
    count.saturating_add(count / 8)
}

/// What so many entries take: 15 % more than their size, in slabs that are not full.
pub fn entries_bytes(entries: u64, entry: &EntrySize) -> u64 {
    let bytes = u128::from(entries) * u128::from(entry.bytes) * 115 / 100;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What a full table takes, its hash included.
pub(super) fn table_bytes(max: u64, buckets: u64, entry: &EntrySize) -> u64 {
    entries_bytes(max, entry).saturating_add(buckets.saturating_mul(BUCKET_BYTES))
}

#[cfg(test)]
mod tests {
    use super::{super::text::per_cent, *};

    #[test]
    fn a_hash_is_too_wide_from_seven_buckets_for_each_entry_on() {
        let max = 10_000;
        assert!(!is_too_wide(max, 69_000) && is_too_wide(max, 70_000));
        assert!(!is_too_wide(0, 262_144), "a table without a maximum is never full");
    }

    /// Fails when the formula is not that of `docs/table-full.md`.
    #[test]
    fn the_chance_to_replace_an_entry_is_as_documented() {
        let chance = |max| per_cent(replacement_chance(max, 262_144));
        assert_eq!([262_144, 65_536, 32_768, 16_384].map(chance), ["99 %", "98 %", "86 %", "63 %"]);
    }
}
