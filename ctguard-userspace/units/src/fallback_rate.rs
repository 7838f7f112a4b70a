//! A rate for the whole table, in the data path's units.

use ctguard_layout::{Grant, TIERS};

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
}
