//! When the next tick is due.

use std::time::Duration;

/// How soon the daemon looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The table is far from its target.
    Calm,
    /// The table is near its target, or a grant is spent.
    Pressure,
    /// The grant was spent faster than it was written.
    AtOnce,
}

impl Pace {
    /// The least time between two ticks, however often the data path wakes the daemon.
    pub const SHORTEST: Duration = Duration::from_millis(1);

    /// Time between two ticks.
    pub const fn interval(self) -> Duration {
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
    fn the_more_there_is_to_do_the_sooner_the_next_tick() {
        assert!(Pace::AtOnce.interval() < Pace::Pressure.interval());
        assert!(Pace::Pressure.interval() < Pace::Calm.interval());
    }
}
