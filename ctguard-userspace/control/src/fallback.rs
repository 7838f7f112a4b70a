//! What replaces the grants while no daemon lives: a rate for the whole table.

use ctguard_ebpf::layout::{Policy, TIERS};
use ctguard_units::{FallbackRate, TableSample, interval, real, whole};

/// Entries live about so long when nobody refreshes them: a full table empties at this pace by
/// itself (conntrack's 120 s for `SYN_SENT` and `TIME_WAIT`).
const ENTRY_LIFETIME_SECONDS: u64 = 120;

/// The most that a rate may be: what a table without a maximum gets.
const HIGHEST: u64 = 10_000_000;

/// Parts of the rate by tier: in calm a quarter for allowed sources and the rest for strangers, for
/// nobody is told apart; else most of it for who is known.
const PARTS_IN_CALM: [f64; TIERS] = [0.75, 0.25, 0.0, 0.0, 0.0, 0.0];
const PARTS_UNDER_PRESSURE: [f64; TIERS] = [0.04, 0.17, 0.36, 0.33, 0.08, 0.02];

/// The rates by tier, each with one second's worth at once.
pub fn fallback(
    policy: &Policy,
    table: TableSample,
    calm: bool,
    jiffies_per_second: u32,
) -> [FallbackRate; TIERS] {
    let total = real(flows_per_second(policy, table));
    let parts = if calm { PARTS_IN_CALM } else { PARTS_UNDER_PRESSURE };
    parts.map(|part| {
        let flows = whole((total * part).round()).max(1);
        let interval = interval(flows, jiffies_per_second);
        FallbackRate { interval, tolerance: (flows - 1) * interval }
    })
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
    use ctguard_settings::DEFAULT_POLICY;

    const HZ: u32 = 250;
    const SECOND: u64 = 250 << 16;

    #[test]
    fn a_table_is_filled_no_faster_than_it_empties() {
        let table = TableSample { entries: 0, max: 16_384 };
        assert_eq!(flows_per_second(&DEFAULT_POLICY, table), 116);
    }

    #[test]
    fn in_calm_strangers_get_three_quarters_and_one_second_of_it_at_once() {
        let policy = Policy { fallback_flows_per_second: 100, ..DEFAULT_POLICY };
        let table = TableSample { entries: 0, max: 1000 };
        let [strangers, allowed, ..] = fallback(&policy, table, true, HZ);
        assert_eq!(strangers.interval, SECOND.div_ceil(75));
        assert_eq!(strangers.tolerance, 74 * SECOND.div_ceil(75));
        assert_eq!(allowed.interval, SECOND.div_ceil(25));
    }

    #[test]
    fn under_pressure_who_is_known_gets_most_of_it() {
        let policy = Policy { fallback_flows_per_second: 100, ..DEFAULT_POLICY };
        let table = TableSample { entries: 0, max: 1000 };
        let rates = fallback(&policy, table, false, HZ).map(|rate| SECOND.div_ceil(rate.interval));
        assert_eq!(rates, [4, 17, 36, 33, 8, 2]);
    }

    #[test]
    fn the_parts_are_the_whole() {
        for parts in [PARTS_IN_CALM, PARTS_UNDER_PRESSURE] {
            assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn the_smallest_table_still_gets_a_flow_a_second() {
        let rates = fallback(&DEFAULT_POLICY, TableSample { entries: 0, max: 1 }, true, HZ);
        assert_eq!(rates[0], FallbackRate { interval: SECOND, tolerance: 0 });
        assert_eq!(rates[1], FallbackRate { interval: SECOND, tolerance: 0 });
    }

    #[test]
    fn a_table_without_a_maximum_gets_the_highest_rate() {
        assert_eq!(flows_per_second(&DEFAULT_POLICY, TableSample { entries: 9, max: 0 }), HIGHEST);
    }
}
