//! The flow cache's clock: about a second a unit, and conntrack's timeouts counted in it.

use ctguard_layout::DaemonFacts;

/// The unit is the power of two of jiffies nearest to, and not over, so many milliseconds.
const LONGEST_UNIT_MILLISECONDS: u64 = 1100;

/// How long a SYN sent again is not charged again: its first retransmission comes after 1 s, its
/// second after 3 s.
const REPEAT_WINDOW_SECONDS: u64 = 3;

/// The data path takes more units for a time that has passed.
const LONGEST_TIMEOUT: u32 = (1 << 20) - 1;

/// Patience with a daemon that does not tick.
const HEARTBEAT_PATIENCE_SECONDS: u32 = 2;

/// A challenge may be answered for one to two of these: a round trip, and what queues add.
const COOKIE_SLOT_SECONDS: u64 = 4;

/// The unit of what is remembered for seconds; 256 of them come round again.
const MEMORY_UNIT_MILLISECONDS: u64 = 130;

/// Who was refused may come again after so long, and until so long: a resolver asks again after
/// one to five seconds, TCP after one and three (RFC 6298), and who floods gains nothing by
/// sending all twice at once.
const RETRY_AFTER_MILLISECONDS: u64 = 300;
const RETRY_BEFORE_MILLISECONDS: u64 = 6000;

/// A tuple that answered a challenge may open its flow for so long.
const ANSWERED_MILLISECONDS: u64 = 3000;

/// A source that ended a flow which it had answered for is not challenged for so long.
const RESET_SECONDS: u64 = 60;

/// Times of the challenges, in the data path's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChallengeTimes {
    cookie_shift: u32,
    memory_shift: u32,
    retry_after: u32,
    retry_before: u32,
    answered_life: u32,
    reset_life_coarse: u32,
}

/// Coarse time on a kernel with so many jiffies in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoarseClock {
    /// Coarse time is jiffies shifted right by this much.
    pub shift: u32,
    jiffies_per_second: u32,
}

impl CoarseClock {
    /// The clock of a kernel with `jiffies_per_second`.
    pub fn new(jiffies_per_second: u32) -> Self {
        let longest = u64::from(jiffies_per_second) * LONGEST_UNIT_MILLISECONDS / 1000;
        Self { shift: longest.max(1).ilog2(), jiffies_per_second }
    }

    /// A timeout of conntrack, less one unit for the rounding of both ends, so that the cache
    /// never knows a flow longer than the kernel.
    pub fn timeout(self, seconds: u64) -> u32 {
        let units = seconds.saturating_mul(u64::from(self.jiffies_per_second)) >> self.shift;
        u32::try_from(units.saturating_sub(1)).unwrap_or(u32::MAX).clamp(1, LONGEST_TIMEOUT)
    }

    /// [`REPEAT_WINDOW_SECONDS`], to the next unit.
    fn repeat_window(self) -> u32 {
        let jiffies = REPEAT_WINDOW_SECONDS * u64::from(self.jiffies_per_second);
        u32::try_from(jiffies.div_ceil(1 << self.shift)).unwrap_or(u32::MAX)
    }

    /// Tells the data path what time is counted in, and how long is waited for what.
    pub fn write(self, facts: &mut DaemonFacts) {
        let times = self.challenge_times();
        facts.jiffies_per_second = self.jiffies_per_second;
        facts.coarse_shift = self.shift;
        facts.heartbeat_patience_jiffies = self.heartbeat_patience();
        facts.repeat_window_coarse = self.repeat_window();
        facts.cookie_shift = times.cookie_shift;
        facts.memory_shift = times.memory_shift;
        facts.retry_after = times.retry_after;
        facts.retry_before = times.retry_before;
        facts.answered_life = times.answered_life;
        facts.reset_life_coarse = times.reset_life_coarse;
    }

    /// Times of the challenges.
    fn challenge_times(self) -> ChallengeTimes {
        let hz = u64::from(self.jiffies_per_second);
        let memory_shift = (hz * MEMORY_UNIT_MILLISECONDS / 1000).max(1).ilog2();
        let units = |milliseconds: u64| {
            u32::try_from((milliseconds * hz / 1000).div_ceil(1 << memory_shift)).unwrap_or(255)
        };
        ChallengeTimes {
            cookie_shift: (hz * COOKIE_SLOT_SECONDS).max(1).ilog2(),
            memory_shift,
            retry_after: units(RETRY_AFTER_MILLISECONDS),
            retry_before: units(RETRY_BEFORE_MILLISECONDS),
            answered_life: units(ANSWERED_MILLISECONDS),
            reset_life_coarse: u32::try_from((RESET_SECONDS * hz) >> self.shift).unwrap_or(255),
        }
    }

    /// Jiffies after which a heartbeat is old.
    fn heartbeat_patience(self) -> u32 {
        HEARTBEAT_PATIENCE_SECONDS.saturating_mul(self.jiffies_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_about_a_second_and_never_over() {
        assert_eq!(CoarseClock::new(1000).shift, 10);
        assert_eq!(CoarseClock::new(250).shift, 8);
        assert_eq!(CoarseClock::new(300).shift, 8);
        assert_eq!(CoarseClock::new(100).shift, 6);
    }

    #[test]
    fn a_timeout_is_never_longer_than_the_kernels() {
        for jiffies_per_second in [100, 250, 300, 1000] {
            let clock = CoarseClock::new(jiffies_per_second);
            for seconds in 2..500 {
                let jiffies = u64::from(clock.timeout(seconds) + 1) << clock.shift;
                let kernel = seconds * u64::from(jiffies_per_second);
                assert!(jiffies <= kernel || clock.timeout(seconds) == 1, "{seconds} s");
            }
        }
    }

    #[test]
    fn what_is_remembered_is_forgotten_before_its_time_comes_round() {
        for jiffies_per_second in [100, 250, 300, 1000] {
            let times = CoarseClock::new(jiffies_per_second).challenge_times();
            assert!(times.retry_after >= 2 && times.retry_before < 128, "{times:?}");
            assert!(times.reset_life_coarse < 128, "{times:?}");
        }
    }

    #[test]
    fn at_250_jiffies_a_second_a_unit_is_an_eighth_of_a_second() {
        let times = CoarseClock::new(250).challenge_times();
        assert_eq!((times.memory_shift, times.retry_after, times.retry_before), (5, 3, 47));
        assert_eq!((times.cookie_shift, times.answered_life), (9, 24));
    }

    #[test]
    fn the_shortest_timeout_is_one_unit() {
        assert_eq!(CoarseClock::new(250).timeout(0), 1);
    }

    #[test]
    fn a_syn_is_free_for_three_seconds() {
        assert_eq!(CoarseClock::new(250).repeat_window(), 3);
        assert_eq!(CoarseClock::new(100).repeat_window(), 5);
    }
}
