//! The guarded table at one instant.

use crate::numbers::real;

const MILLION: u64 = 1_000_000;

/// Read after the admissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSample {
    /// Entries in the table.
    pub entries: u64,
    /// 0 means no maximum.
    pub max: u64,
}

impl TableSample {
    /// Part of the maximum; 0 without a maximum.
    pub fn fill(self) -> f64 {
        if self.max == 0 { 0.0 } else { real(self.entries) / real(self.max) }
    }

    /// Whether it holds more entries than at the target fill.
    pub fn is_above(self, target_ppm: u32) -> bool {
        self.entries > self.target(target_ppm)
    }

    /// Entries at the target fill.
    pub fn target(self, target_ppm: u32) -> u64 {
        self.part(target_ppm).min(self.max)
    }

    /// So many parts per million of the maximum.
    pub fn part(self, ppm: u32) -> u64 {
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
