//! What replaces the grants while no daemon lives: a rate for the whole table.

use ctguard_ebpf::layout::{Policy, TIERS, Tier};

use super::{TableSample, ceiling::interval};

/// Entries live about so long when nobody refreshes them: a full table empties at this pace by
/// itself (conntrack's 120 s for `SYN_SENT` and `TIME_WAIT`).
const ENTRY_LIFETIME_SECONDS: u64 = 120;

/// The most that a rate may be: what a table without a maximum gets.
const HIGHEST: u64 = 10_000_000;

/// A GCRA for the whole table, in ticks of the data path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FallbackRate {
    pub(crate) interval: u64,
    pub(crate) tolerance: u64,
}

/// The rates by tier: a quarter for allowed sources, the rest for strangers, each with one
/// second's worth at once.
pub(crate) fn fallback(
    policy: &Policy,
    table: TableSample,
    jiffies_per_second: u32,
) -> [FallbackRate; TIERS] {
    let total = flows_per_second(policy, table);
    let allowed = (total / 4).max(1);
    let mut rates = [FallbackRate::default(); TIERS];
    for (tier, flows) in [(Tier::Strangers, (total - total / 4).max(1)), (Tier::Allowed, allowed)] {
        let interval = interval(flows, jiffies_per_second);
        rates[tier as usize] = FallbackRate { interval, tolerance: (flows - 1) * interval };
    }
    rates
}

/// New flows a second for the whole table.
pub(crate) fn flows_per_second(policy: &Policy, table: TableSample) -> u64 {
    match (policy.fallback_flows_per_second, table.max) {
        (0, 0) => HIGHEST,
        (0, _) => table.target(policy.target_ppm) / ENTRY_LIFETIME_SECONDS,
        (set, _) => u64::from(set),
    }
    .clamp(1, HIGHEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DEFAULT_POLICY;

    const HZ: u32 = 250;
    const SECOND: u64 = 250 << 16;

    #[test]
    fn a_table_is_filled_no_faster_than_it_empties() {
        let table = TableSample { entries: 0, max: 16_384 };
        assert_eq!(flows_per_second(&DEFAULT_POLICY, table), 116);
    }

    #[test]
    fn strangers_get_three_quarters_and_one_second_of_it_at_once() {
        let policy = Policy { fallback_flows_per_second: 100, ..DEFAULT_POLICY };
        let [strangers, allowed] = fallback(&policy, TableSample { entries: 0, max: 1000 }, HZ);
        assert_eq!(strangers.interval, SECOND.div_ceil(75));
        assert_eq!(strangers.tolerance, 74 * SECOND.div_ceil(75));
        assert_eq!(allowed.interval, SECOND.div_ceil(25));
    }

    #[test]
    fn the_smallest_table_still_gets_a_flow_a_second() {
        let [strangers, allowed] =
            fallback(&DEFAULT_POLICY, TableSample { entries: 0, max: 1 }, HZ);
        assert_eq!(strangers, FallbackRate { interval: SECOND, tolerance: 0 });
        assert_eq!(allowed, FallbackRate { interval: SECOND, tolerance: 0 });
    }

    #[test]
    fn a_table_without_a_maximum_gets_the_highest_rate() {
        assert_eq!(flows_per_second(&DEFAULT_POLICY, TableSample { entries: 9, max: 0 }), HIGHEST);
    }
}
