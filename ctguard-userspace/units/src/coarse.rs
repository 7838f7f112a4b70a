//! Times in the data path's units: coarse time of about a second for the flow cache, and a finer unit
//! for challenges.

use ctguard_layout::DaemonFacts;

/// A coarse unit is the largest power of two of jiffies up to this.
const LONGEST_UNIT_MILLISECONDS: u64 = 1100;

/// A SYN that is sent again within this time is not charged again: Linux sends it after 1 s and 3 s.
const REPEAT_WINDOW_SECONDS: u64 = 3;

/// The data path takes a larger number for a time that has passed.
const LONGEST_TIMEOUT: u32 = (1 << 20) - 1;

/// After this time without a tick the fallback rate takes over.
const HEARTBEAT_PATIENCE_SECONDS: u32 = 2;

/// A challenge may be answered for one to two slots: a round trip and queues.
const COOKIE_SLOT_SECONDS: u64 = 4;

/// Longest unit of the times of retries.
const MEMORY_UNIT_MILLISECONDS: u64 = 130;

/// A refused sender may come again within these times: UDP clients ask again after 0.4 to 7.5
/// seconds, most of them after one to five, and TCP after one and three (RFC 6298). A flood that
/// sends everything twice at once gains nothing.
const RETRY_AFTER_MILLISECONDS: u64 = 200;
const RETRY_BEFORE_MILLISECONDS: u64 = 12_000;

/// Senders that come within this time share a batch, so that batches are full in a flood. The first
/// of them may come again only so much later, which clients that wait for a second do not notice.
const RETRY_JOINED_MILLISECONDS: u64 = 650;

/// A flood cannot make the guard forget a sender sooner than this.
const RETRY_KEPT_MILLISECONDS: u64 = 5100;

/// A tuple that answered a challenge may open its flow for this time. Only a connection's first SYN
/// is sent again at once; the others are after 1, 2, 4, 8, 16 and 32 seconds (RFC 6298).
const ANSWERED_SECONDS: u64 = 35;

/// A source is sent this many challenge ACKs per second.
const CHALLENGES_PER_SECOND: u32 = 10;

/// The units on a kernel with this `jiffies_per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoarseClock {
    /// Coarse time is jiffies shifted right by this much.
    pub shift: u32,
    jiffies_per_second: u32,
}

impl CoarseClock {
    /// On a kernel with `jiffies_per_second`.
    pub fn new(jiffies_per_second: u32) -> Self {
        let longest = u64::from(jiffies_per_second) * LONGEST_UNIT_MILLISECONDS / 1000;
        Self { shift: longest.max(1).ilog2(), jiffies_per_second }
    }

    /// One of conntrack's timeouts, less one unit because both ends are rounded: the flow cache never
    /// knows a flow longer than the kernel.
    pub fn timeout(self, seconds: u64) -> u32 {
        let units = seconds.saturating_mul(u64::from(self.jiffies_per_second)) >> self.shift;
        u32::try_from(units.saturating_sub(1)).unwrap_or(u32::MAX).clamp(1, LONGEST_TIMEOUT)
    }

    /// Writes all of the data path's times but conntrack's timeouts.
    pub fn write(self, facts: &mut DaemonFacts) {
        let hz = u64::from(self.jiffies_per_second);
        let repeat_window = (REPEAT_WINDOW_SECONDS * hz).div_ceil(1 << self.shift);
        let memory_shift = memory_shift(self.jiffies_per_second);
        let units = |milliseconds: u64| {
            u32::try_from((milliseconds * hz / 1000).div_ceil(1 << memory_shift)).unwrap_or(255)
        };
        facts.jiffies_per_second = self.jiffies_per_second;
        facts.coarse_shift = self.shift;
        facts.heartbeat_patience_jiffies =
            HEARTBEAT_PATIENCE_SECONDS.saturating_mul(self.jiffies_per_second);
        facts.repeat_window_coarse = u32::try_from(repeat_window).unwrap_or(u32::MAX);
        facts.cookie_shift = (hz * COOKIE_SLOT_SECONDS).max(1).ilog2();
        facts.memory_shift = memory_shift;
        facts.challenge_interval = self.jiffies_per_second.div_ceil(CHALLENGES_PER_SECOND);
        let joined = (RETRY_JOINED_MILLISECONDS * hz / 1000) >> memory_shift;
        facts.retry_joined = u32::try_from(joined).unwrap_or(0);
        // Ages are those of batches, which senders join later.
        facts.retry_after = units(RETRY_AFTER_MILLISECONDS) + facts.retry_joined;
        facts.retry_before = units(RETRY_BEFORE_MILLISECONDS);
        facts.retry_kept = units(RETRY_KEPT_MILLISECONDS) + facts.retry_joined;
        facts.answered_life_coarse =
            u32::try_from((ANSWERED_SECONDS * hz).div_ceil(1 << self.shift)).unwrap_or(u32::MAX);
    }
}

/// The unit of the times of retries is 2^this jiffies.
fn memory_shift(jiffies_per_second: u32) -> u32 {
    (u64::from(jiffies_per_second) * MEMORY_UNIT_MILLISECONDS / 1000).max(1).ilog2()
}

/// Challenges in each unit of the times of retries: at least one, or 0 if `per_second` is 0.
pub fn answers(per_second: u64, jiffies_per_second: u32) -> u32 {
    let in_unit =
        (per_second << memory_shift(jiffies_per_second)) / u64::from(jiffies_per_second.max(1));
    let least = u64::from(per_second > 0);
    u32::try_from(in_unit.max(least)).unwrap_or(u32::MAX)
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
    fn memories_take_few_strangers_for_remembered() {
        for jiffies_per_second in [100, 250, 300, 1000] {
            let facts = facts(jiffies_per_second);
            // See `memory` for the bound.
            assert!(facts.answered_life_coarse < 256, "{facts:?}");
        }
    }

    #[test]
    fn who_comes_again_after_one_to_five_seconds_is_remembered_and_nobody_at_once() {
        for jiffies_per_second in [100, 250, 300, 1000] {
            let facts = facts(jiffies_per_second);
            let hz = u64::from(jiffies_per_second);
            let jiffies = |units: u32| u64::from(units) << facts.memory_shift;
            assert!(jiffies(facts.retry_after) <= hz, "{facts:?}");
            // A moment is rounded down.
            let soonest = facts.retry_after - facts.retry_joined - 1;
            assert!(jiffies(soonest) * 10 >= hz, "{facts:?}");
            assert!(jiffies(facts.retry_kept - facts.retry_joined) >= 5 * hz, "{facts:?}");
            // The data path keeps eight bits of a time.
            assert!(facts.retry_kept < facts.retry_before && facts.retry_before < 256);
        }
    }

    #[test]
    fn an_answer_outlives_the_longest_gap_between_two_syns() {
        for jiffies_per_second in [100, 250, 300, 1000] {
            let facts = facts(jiffies_per_second);
            let jiffies = u64::from(facts.answered_life_coarse) << facts.coarse_shift;
            assert!(jiffies >= 33 * u64::from(jiffies_per_second), "{facts:?}");
        }
    }

    #[test]
    fn at_250_jiffies_a_second_a_unit_is_an_eighth_of_a_second() {
        let facts = facts(250);
        assert_eq!((facts.memory_shift, facts.retry_after, facts.retry_before), (5, 7, 94));
        assert_eq!((facts.retry_joined, facts.retry_kept), (5, 45));
        assert_eq!((facts.cookie_shift, facts.answered_life_coarse), (9, 35));
    }

    #[test]
    fn a_source_is_sent_no_more_than_ten_challenges_a_second() {
        let interval = |jiffies_per_second| facts(jiffies_per_second).challenge_interval;
        assert_eq!([100, 250, 300, 1000].map(interval), [10, 25, 30, 100]);
    }

    #[test]
    fn answers_of_a_second_are_spread_over_its_units() {
        for jiffies_per_second in [100, 250, 300, 1000] {
            let units = f64::from(jiffies_per_second)
                / f64::from(1_u32 << facts(jiffies_per_second).memory_shift);
            let in_a_second = f64::from(answers(1_000_000, jiffies_per_second)) * units;
            assert!((999_900.0..=1_000_000.0).contains(&in_a_second), "{in_a_second}");
            assert_eq!([0, 1].map(|rate| answers(rate, jiffies_per_second)), [0, 1]);
        }
    }

    #[test]
    fn the_shortest_timeout_is_one_unit() {
        assert_eq!(CoarseClock::new(250).timeout(0), 1);
    }

    #[test]
    fn a_syn_is_free_for_three_seconds() {
        assert_eq!(facts(250).repeat_window_coarse, 3);
        assert_eq!(facts(100).repeat_window_coarse, 5);
    }

    fn facts(jiffies_per_second: u32) -> DaemonFacts {
        let mut facts = DaemonFacts::default();
        CoarseClock::new(jiffies_per_second).write(&mut facts);
        facts
    }
}
