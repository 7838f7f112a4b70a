//! The rates, for the whole table, that replace the grants while no daemon runs.

use crate::tuning::TUNING;
use ctguard_layout::{Policy, TIERS};
use ctguard_units::{FallbackRate, TableSample, interval, real, whole};

/// The rate of each tier, with a burst of its part of half of the room below the target, at least
/// what comes in a second.
///
/// Half of it is divided as the tiers were `served` lately, in new flows per second: there may be no
/// source at all in a tier that would get much.
pub fn fallback(
    policy: &Policy,
    table: TableSample,
    calm: bool,
    served: &[f64; TIERS],
    jiffies_per_second: u32,
) -> [FallbackRate; TIERS] {
    let total = real(flows_per_second(policy, table));
    let parts = if calm { TUNING.fallback_in_calm } else { TUNING.fallback_under_pressure };
    let free = real(table.target(policy.target_ppm).saturating_sub(table.entries)) / 2.0;
    let all: f64 = served.iter().sum();
    std::array::from_fn(|tier| {
        let lately = if all > 1.0 { served[tier] / all } else { parts[tier] };
        let part = f64::midpoint(parts[tier], lately);
        let flows = whole((total * part).round()).max(1);
        let interval = interval(flows, jiffies_per_second);
        let burst = if table.max == 0 { flows } else { whole(free * part).max(flows) };
        FallbackRate { interval, tolerance: (burst - 1).saturating_mul(interval) }
    })
}

/// New flows per second for the whole table.
pub(crate) fn flows_per_second(policy: &Policy, table: TableSample) -> u64 {
    match (policy.fallback_flows_per_second, table.max) {
        (0, 0) => TUNING.fallback_highest,
        (0, _) => table.target(policy.target_ppm) / TUNING.entry_lifetime_seconds,
        (set, _) => u64::from(set),
    }
    .clamp(1, TUNING.fallback_highest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctguard_settings::DEFAULT_POLICY;

    const HZ: u32 = 250;
    const UNSERVED: [f64; TIERS] = [0.0; TIERS];
    const SECOND: u64 = 250 << 16;

    #[test]
    fn a_table_is_filled_no_faster_than_it_empties() {
        let table = TableSample { entries: 0, max: 16_384 };
        assert_eq!(flows_per_second(&DEFAULT_POLICY, table), 116);
    }

    #[test]
    fn in_calm_strangers_get_most_and_one_second_of_it_at_once_in_a_full_table() {
        let policy = Policy { fallback_flows_per_second: 100, ..DEFAULT_POLICY };
        let table = TableSample { entries: 900, max: 1000 };
        let [strangers, allowed, ..] = fallback(&policy, table, true, &UNSERVED, HZ);
        assert_eq!(strangers.interval, SECOND.div_ceil(40));
        assert_eq!(strangers.tolerance, 39 * SECOND.div_ceil(40));
        assert_eq!(allowed.interval, SECOND.div_ceil(10));
    }

    #[test]
    fn under_pressure_who_is_known_gets_most_of_it() {
        let policy = Policy { fallback_flows_per_second: 100, ..DEFAULT_POLICY };
        let table = TableSample { entries: 0, max: 1000 };
        let rates = fallback(&policy, table, false, &UNSERVED, HZ);
        let rates = rates.map(|rate| SECOND.div_ceil(rate.interval));
        assert_eq!(rates, [3, 17, 30, 16, 8, 2, 23, 1]);
    }

    #[test]
    fn tiers_that_were_served_lately_get_half_of_what_the_others_would_have() {
        let policy = Policy { fallback_flows_per_second: 100, ..DEFAULT_POLICY };
        let table = TableSample { entries: 0, max: 1000 };
        let served = [0.0, 0.0, 0.0, 0.0, 90.0, 0.0, 90.0, 0.0];
        let rates = fallback(&policy, table, false, &served, HZ);
        let rates = rates.map(|rate| SECOND.div_ceil(rate.interval));
        assert_eq!(rates, [2, 9, 15, 8, 29, 1, 37, 1]);
    }

    #[test]
    fn half_of_the_free_room_may_be_spent_at_once() {
        let policy = Policy { fallback_flows_per_second: 1, ..DEFAULT_POLICY };
        let rates =
            fallback(&policy, TableSample { entries: 8000, max: 100_000 }, false, &UNSERVED, HZ);
        let bursts = rates.map(|rate| rate.tolerance / rate.interval + 1);
        let free = u64::from(DEFAULT_POLICY.target_ppm) / 10 - 8000;
        let all: u64 = bursts.iter().sum();
        assert!((free / 2 - 8..=free / 2 + 8).contains(&all), "{bursts:?}");
        assert!(bursts.iter().all(|&burst| burst > 100), "{bursts:?}");
    }

    #[test]
    fn the_parts_are_the_whole() {
        for parts in [TUNING.fallback_in_calm, TUNING.fallback_under_pressure] {
            assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn the_smallest_table_still_gets_a_flow_a_second() {
        let rates =
            fallback(&DEFAULT_POLICY, TableSample { entries: 1, max: 1 }, true, &UNSERVED, HZ);
        assert_eq!(rates[0], FallbackRate { interval: SECOND, tolerance: 0 });
        assert_eq!(rates[1], FallbackRate { interval: SECOND, tolerance: 0 });
    }

    #[test]
    fn a_table_without_a_maximum_gets_the_highest_rate() {
        assert_eq!(
            flows_per_second(&DEFAULT_POLICY, TableSample { entries: 9, max: 0 }),
            TUNING.fallback_highest
        );
    }
}
