//! What is read of the table, and what is written for a tier.

use super::smoothed::real;

/// Parts of a whole in parts per million.
const MILLION: u64 = 1_000_000;

/// The guarded table at one instant, read after the admissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableSample {
    pub(crate) entries: u64,
    /// 0: the operator set no maximum.
    pub(crate) max: u64,
}

/// What the daemon writes for one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TierGrant {
    /// G.
    pub(crate) limit: u64,
    /// Admissions at which the daemon wants to be woken.
    pub(crate) wake_at: u64,
}

impl TableSample {
    /// Entries in proportion to the maximum; 0 where there is none.
    pub(crate) fn fill(self) -> f64 {
        if self.max == 0 { 0.0 } else { real(self.entries) / real(self.max) }
    }

    /// Entries at the target fill.
    pub(crate) fn target(self, target_ppm: u32) -> u64 {
        self.part(target_ppm).min(self.max)
    }

    /// So many parts per million of the maximum.
    pub(super) fn part(self, ppm: u32) -> u64 {
        let parts = u128::from(self.max) * u128::from(ppm) / u128::from(MILLION);
        u64::try_from(parts).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_a_part_of_the_maximum_and_never_more() {
        let table = TableSample { entries: 0, max: 16_384 };
        assert_eq!(table.target(850_000), 13_926);
        assert_eq!(table.target(1_000_000), 16_384);
        assert_eq!(TableSample { entries: 9, max: 0 }.target(850_000), 0);
    }
}
