//! When the next tick is due.

use std::time::Duration;

use super::TableSample;

/// How soon the daemon looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The table is far from its target.
    Calm,
    /// The table is near its target, or a grant is spent.
    Pressure,
    /// The grant was spent faster than it was written.
    AtOnce,
}

impl Pace {
    /// However often the data path wakes the daemon: a thousand ticks a second are enough.
    pub(crate) const SHORTEST: Duration = Duration::from_millis(1);

    /// The pace after a tick that saw `table`, and whether some grant was spent.
    pub(crate) fn after(table: TableSample, target_ppm: u32, spent: bool) -> Self {
        let near = table.max > 0 && table.entries >= table.target(target_ppm) / 10 * 9;
        if near || spent { Self::Pressure } else { Self::Calm }
    }

    /// Time between two ticks.
    pub(crate) const fn interval(self) -> Duration {
        match self {
            Self::Calm => Duration::from_millis(100),
            Self::Pressure => Duration::from_millis(20),
            Self::AtOnce => Self::SHORTEST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_of_the_target_are_pressure() {
        assert_eq!(Pace::after(table(764), 850_000, false), Pace::Calm);
        assert_eq!(Pace::after(table(765), 850_000, false), Pace::Pressure);
    }

    #[test]
    fn a_spent_grant_is_pressure_at_any_fill() {
        assert_eq!(Pace::after(table(0), 850_000, true), Pace::Pressure);
    }

    #[test]
    fn a_table_without_a_maximum_is_never_near_it() {
        assert_eq!(Pace::after(TableSample { entries: 9, max: 0 }, 850_000, false), Pace::Calm);
    }

    fn table(entries: u64) -> TableSample {
        TableSample { entries, max: 1000 }
    }
}
