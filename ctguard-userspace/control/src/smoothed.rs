//! Averaged rates of counters.

use std::time::Duration;

/// An exponentially weighted average of a rate, with the time constant `memory`. Its integral equals
/// the count, whatever the lengths of the ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Smoothed {
    memory: Duration,
    per_second: f64,
}

impl Smoothed {
    pub(crate) const fn over(memory: Duration) -> Self {
        Self { memory, per_second: 0.0 }
    }

    /// `elapsed` is the time since the last observation.
    pub(crate) fn observe(&mut self, counted: f64, elapsed: Duration) {
        let elapsed = elapsed.as_secs_f64();
        if elapsed > 0.0 {
            let weight = 1.0 - (-elapsed / self.memory.as_secs_f64()).exp();
            self.per_second += weight * (counted / elapsed - self.per_second);
        }
    }

    pub(crate) const fn per_second(&self) -> f64 {
        self.per_second
    }
}

#[expect(clippy::float_cmp, reason = "these numbers come out exactly")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_whatever_the_ticks() {
        for milliseconds in [1, 20, 100, 5000] {
            let mut rate = Smoothed::over(Duration::from_secs(1));
            let tick = Duration::from_millis(milliseconds);
            for _ in 0..(10_000 / milliseconds).max(4) {
                rate.observe(50.0 * tick.as_secs_f64(), tick);
            }
            assert!((rate.per_second() - 50.0).abs() < 0.1, "{milliseconds} ms");
        }
    }

    #[test]
    fn a_burst_weighs_the_same_in_ticks_of_any_length() {
        let mut rate = Smoothed::over(Duration::from_secs(1));
        rate.observe(100.0, Duration::from_millis(1));
        assert!((rate.per_second() - 100.0).abs() < 1.0);
    }

    #[test]
    fn an_observation_of_no_time_is_none() {
        let mut rate = Smoothed::over(Duration::from_secs(1));
        rate.observe(100.0, Duration::ZERO);
        assert_eq!(rate.per_second(), 0.0);
    }
}
