//! Sizes of the maps.

/// 1 MiB of buckets, and half as much of offered loads.
const SOURCE_LINES: u32 = 16_384;

/// 256 KiB; there are fewer prefixes than sources.
pub const PREFIX_LINES: u32 = 4096;
/// 256 KiB.
pub const SERVICE_LINES: u32 = 4096;

/// 8 MiB: nine in ten of half a million strangers per second for five seconds, and half of 1.4
/// million. Beside the largest flow cache it is half as much, so that all maps fit in 32 MiB.
const MOST_RETRY_LINES: u32 = 131_072;
/// 512 KiB: 3,500 answers per second, each for 35 seconds.
pub const ANSWERED_LINES: u32 = 8192;
/// 256 KiB: among half a million strangers per second, a source that is challenged more than eight
/// times per second is found again.
pub const CHALLENGED_LINES: u32 = 4096;

const FEWEST_FLOW_LINES: u64 = 1 << 10;
/// 16 MiB.
const MOST_FLOW_LINES: u64 = 1 << 18;

const FEWEST_KNOWN_WORDS: u64 = 1 << 10;
/// 4 MiB for each generation.
const MOST_KNOWN_WORDS: u64 = 1 << 19;

/// Sizes that depend on the guarded table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Lines of `buckets_source`.
    pub source_lines: u32,
    /// Lines of `flow_cache`.
    pub flow_lines: u32,
    /// Of both generations.
    pub known_words: u32,
    /// Lines of `retries`.
    pub retry_lines: u32,
}

impl Sizes {
    /// For a table of `max` entries: two slots of the flow cache for each, and for its two tuples
    /// half a word in each generation of the known-flows filter.
    pub fn of_table(max: u64) -> Self {
        // 0 means no maximum.
        let max = if max == 0 { u64::MAX } else { max };
        let size = |wanted: u64, fewest: u64, most: u64| {
            let size = wanted.clamp(fewest, most).next_power_of_two();
            u32::try_from(size).unwrap_or(u32::MAX)
        };
        let flow_lines = size(max / 4, FEWEST_FLOW_LINES, MOST_FLOW_LINES);
        let is_largest = u64::from(flow_lines) == MOST_FLOW_LINES;
        Self {
            source_lines: SOURCE_LINES,
            flow_lines,
            retry_lines: if is_largest { MOST_RETRY_LINES / 2 } else { MOST_RETRY_LINES },
            known_words: 2 * size(max / 2, FEWEST_KNOWN_WORDS, MOST_KNOWN_WORDS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_two_slots_of_the_flow_cache_and_half_a_word_of_each_generation() {
        let sizes = Sizes::of_table(16_384);
        assert_eq!((sizes.flow_lines, sizes.known_words), (4096, 2 * 8192));
    }

    #[test]
    fn the_maps_have_bounds() {
        let of = |max| (Sizes::of_table(max).flow_lines, Sizes::of_table(max).known_words);
        assert_eq!(of(1), (1024, 2 * 1024));
        assert_eq!(of(100_000_000), (262_144, 2 * 524_288));
        assert_eq!(of(0), of(u64::MAX));
        assert_eq!(Sizes::of_table(16_384).retry_lines, 131_072);
        assert_eq!(Sizes::of_table(100_000_000).retry_lines, 65_536);
    }
}
