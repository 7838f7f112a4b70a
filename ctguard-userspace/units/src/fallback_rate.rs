//! A rate for the whole table, in the data path's units.

use ctguard_layout::{Grant, TIERS, units::Ticks};

/// A GCRA in ticks of the data path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FallbackRate {
    /// Ticks between two flows.
    pub interval: u64,
    /// Ticks by which a flow may come early: the burst.
    pub tolerance: u64,
}

impl FallbackRate {
    /// Writes the rates by tier.
    pub fn write_all(rates: [Self; TIERS], grant: &Grant) {
        for (fallback, rate) in grant.fallback.iter().zip(rates) {
            fallback.interval.store(rate.interval);
            fallback.tolerance.store(rate.tolerance);
        }
    }

    /// The rate of exempt flows: their entries are at most a 64th of the table.
    ///
    /// One that was admitted counts as known for the longest timeout, and may make its entry at the
    /// end of it. So entries are at most the burst and what is admitted in twice that time.
    pub fn exempt(table_max: u64, jiffies_per_second: u32) -> Self {
        let burst = (table_max / 128).clamp(8, 512);
        let span = 2 * LONGEST_TIMEOUT_SECONDS * u64::from(jiffies_per_second) * Ticks::PER_JIFFY;
        let interval = span.div_ceil(burst);
        Self { interval, tolerance: (burst - 1) * interval }
    }

    /// Writes the rate of exempt flows.
    pub fn write_exempt(self, grant: &Grant) {
        grant.exempt.interval.store(self.interval);
        grant.exempt.tolerance.store(self.tolerance);
    }
}

/// The kernel's default of `nf_conntrack_generic_timeout`, that of OSPF and VRRP.
const LONGEST_TIMEOUT_SECONDS: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exempt_flows_make_entries_of_a_64th_of_the_table() {
        let FallbackRate { interval, tolerance } = FallbackRate::exempt(16_384, 250);
        let burst = tolerance / interval + 1;
        let later = 2 * LONGEST_TIMEOUT_SECONDS * 250 * Ticks::PER_JIFFY / interval;
        assert_eq!([burst, later], [128, 128]);
    }
}
