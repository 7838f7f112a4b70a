//! Jiffies of the simulated kernel.

use std::time::Duration;

use ctguard_layout::units::Jiffies;
use ctguard_units::JiffiesClock;

/// Jiffies at the start: not 0, which may mean "never".
const START: Jiffies = Jiffies(1_000_000);

const NANOSECONDS: u128 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    jiffies: JiffiesClock,
    per_second: u32,
}

impl Clock {
    pub(super) fn new(jiffies_per_second: u32) -> Self {
        Self {
            jiffies: JiffiesClock::new(START, Duration::ZERO, jiffies_per_second),
            per_second: jiffies_per_second.max(1),
        }
    }

    pub(super) fn jiffies(&self, at: Duration) -> Jiffies {
        self.jiffies.read(at)
    }

    /// The last moment of the present jiffy.
    pub(super) fn jiffy_ends(&self, now: Duration) -> Duration {
        let per_second = u128::from(self.per_second);
        let count = now.as_nanos() * per_second / NANOSECONDS;
        let next = ((count + 1) * NANOSECONDS).div_ceil(per_second);
        Duration::from_nanos(u64::try_from(next - 1).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_stays_for_the_rest_of_a_jiffy() {
        for jiffies_per_second in [100, 250, 300, 1000] {
            let clock = Clock::new(jiffies_per_second);
            for milliseconds in 0..100 {
                let now = Duration::from_micros(milliseconds * 1000 + 7);
                let last = clock.jiffy_ends(now);
                assert_eq!(clock.jiffies(now), clock.jiffies(last));
                let next = last + Duration::from_nanos(1);
                assert_eq!(clock.jiffies(now).0 + 1, clock.jiffies(next).0);
            }
        }
    }
}
