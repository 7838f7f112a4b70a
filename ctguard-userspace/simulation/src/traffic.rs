//! When the sources of a group open their flows, and which of them.

use std::{ops::Range, time::Duration};

use fastrand::Rng;

use super::group::{Arrivals, Group};
use ctguard_units::whole;

const DAY: Duration = Duration::from_hours(24);

/// A Poisson distribution of this mean or more is drawn as a normal one.
const MANY: f64 = 32.0;

#[derive(Clone, Debug)]
pub(super) struct Traffic {
    group: Group,
    /// New flows per second of the whole group.
    rate: f64,
    interval: Duration,
    sources: u64,
    active: Range<Duration>,
    next_source: u64,
}

impl Traffic {
    /// `addresses` are those of the group's network, `duration` that of the run.
    pub(super) fn new(group: &Group, addresses: u64, duration: Duration) -> Self {
        let rate = group.total_rate();
        Self {
            group: group.clone(),
            rate,
            interval: Duration::from_secs_f64(1.0 / rate),
            sources: if group.spoofed { addresses } else { u64::from(group.sources) },
            active: group.active(duration),
            next_source: 0,
        }
    }

    pub(super) fn first(&self, random: &mut Rng) -> Option<Duration> {
        let start = self.active_from(self.active.start)?;
        self.arrival_after(start, random)
    }

    pub(super) fn arrival_after(&self, now: Duration, random: &mut Rng) -> Option<Duration> {
        let mut from = now;
        loop {
            let gap = match self.group.arrivals {
                Arrivals::Poisson => {
                    // `f64` may return 0, which has no logarithm.
                    Duration::from_secs_f64(-(1.0 - random.f64()).ln() / self.rate)
                }
                Arrivals::Constant => self.interval,
            };
            let next = from + gap;
            let active = self.active_from(next)?;
            if active == next {
                return Some(next);
            }
            // A Poisson process has no memory, so it may start again with each active time.
            from = active;
        }
    }

    /// How many flows come between `now` and `horizon`, and when the next one comes after them.
    pub(super) fn skip(
        &self,
        now: Duration,
        horizon: Duration,
        random: &mut Rng,
    ) -> (u64, Option<Duration>) {
        // A group that may pause in between is not skipped.
        let steady = self.active_from(horizon) == Some(horizon)
            && self.group.hours.is_none()
            && self.group.pulse.is_none();
        let span = horizon.saturating_sub(now);
        if !steady || span.is_zero() {
            return (0, self.arrival_after(now, random));
        }
        match self.group.arrivals {
            Arrivals::Poisson => {
                let count = poisson(self.rate * span.as_secs_f64(), random);
                (count, self.arrival_after(horizon, random))
            }
            Arrivals::Constant => {
                let count = span.as_nanos() / self.interval.as_nanos().max(1);
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                (u64::from(count), self.arrival_after(now + self.interval * count, random))
            }
        }
    }

    /// The source of the next flow. Constant arrivals take one source after the other.
    pub(super) fn source(&mut self, random: &mut Rng) -> u64 {
        match self.group.arrivals {
            Arrivals::Poisson => random.u64(0..self.sources),
            Arrivals::Constant => {
                self.next_source += 1;
                self.next_source % self.sources
            }
        }
    }

    /// The first moment from `at` on at which the group is active.
    fn active_from(&self, at: Duration) -> Option<Duration> {
        let mut at = at.max(self.active.start);
        // A moment that `hours` allow may be one that `pulse` forbids, and the other way round.
        loop {
            let later = self.pulse_from(self.hours_from(at));
            if later >= self.active.end {
                return None;
            }
            if later == at {
                return Some(at);
            }
            at = later;
        }
    }

    fn hours_from(&self, at: Duration) -> Duration {
        let Some(hours) = self.group.hours else { return at };
        let midnight = DAY * u32::try_from(at.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX);
        let time = at.saturating_sub(midnight);
        if time < hours.from {
            midnight + hours.from
        } else if time < hours.until {
            at
        } else {
            midnight + DAY + hours.from
        }
    }

    fn pulse_from(&self, at: Duration) -> Duration {
        let Some(pulse) = self.group.pulse else { return at };
        let period = (pulse.on.0 + pulse.off.0).as_nanos();
        let into = at.saturating_sub(self.active.start).as_nanos() % period;
        let into = Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
        if into < pulse.on.0 { at } else { at.saturating_sub(into) + pulse.on.0 + pulse.off.0 }
    }
}

/// Draws from a Poisson distribution.
fn poisson(mean: f64, random: &mut Rng) -> u64 {
    if mean >= MANY {
        // Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
        let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
        return whole((mean + mean.sqrt() * normal).round().max(0.0));
    }
    // Knuth, "The Art of Computer Programming", 3.4.1: exponential gaps until the mean is passed.
    let (limit, mut product, mut count) = ((-mean).exp(), random.f64(), 0);
    while product > limit {
        product *= random.f64();
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scenario::Scenario;
    use ctguard_units::real;

    #[test]
    fn a_constant_load_comes_at_equal_intervals_from_each_source_in_turn() {
        let (mut traffic, mut random) = (traffic("arrivals = 'constant'"), Rng::with_seed(1));
        let first = traffic.first(&mut random).unwrap();
        let second = traffic.arrival_after(first, &mut random).unwrap();
        assert_eq!((first, second), (Duration::from_millis(10), Duration::from_millis(20)));
        let sources: Vec<_> = (0..11).map(|_| traffic.source(&mut random)).collect();
        assert_eq!(sources[0], sources[10]);
    }

    #[test]
    fn a_poisson_load_has_its_rate_on_average_judged_or_skipped() {
        let (traffic, mut random) = (traffic(""), Rng::with_seed(1));
        let mut count = 0;
        let mut next = traffic.first(&mut random);
        while let Some(at) = next {
            count += 1;
            next = traffic.arrival_after(at, &mut random);
        }
        assert!((9_500..10_500).contains(&count), "{count}");
        let (skipped, _) = traffic.skip(Duration::ZERO, Duration::from_secs(90), &mut random);
        assert!((8_500..9_500).contains(&skipped), "{skipped}");
    }

    #[test]
    fn small_numbers_have_the_mean_that_they_are_asked_for() {
        let mut random = Rng::with_seed(1);
        let sum: u64 = (0..10_000).map(|_| poisson(2.5, &mut random)).sum();
        assert!((real(sum) / 10_000.0 - 2.5).abs() < 0.1, "{sum}");
    }

    #[test]
    fn nothing_comes_outside_hours_and_pulse() {
        let traffic = traffic("hours = '00:00-00:01'\npulse = { on = '1s', off = '9s' }");
        let mut random = Rng::with_seed(1);
        let mut next = traffic.first(&mut random);
        let mut count = 0;
        while let Some(at) = next {
            assert!(at.as_secs() < 60 && at.as_secs() % 10 == 0, "{at:?}");
            count += 1;
            next = traffic.arrival_after(at, &mut random);
        }
        assert!((450..750).contains(&count), "{count}");
    }

    fn traffic(more: &str) -> Traffic {
        let text = format!(
            "duration = '100s'\n[[group]]\nname = 'a'\nsources = 10\nrate = '10/s'\n{more}\n"
        );
        let scenario = Scenario::parse(&text, Path::new("s.toml")).unwrap();
        Traffic::new(&scenario.groups[0], 10, scenario.duration.0)
    }
}
