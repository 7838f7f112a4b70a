//! Admissions whose entries may not be in the table yet.

use crate::tuning::TUNING;
use std::{collections::VecDeque, time::Duration};

/// Total admissions at recent ticks.
#[derive(Debug, Default)]
pub struct InFlight {
    samples: VecDeque<(Duration, u64)>,
}

impl InFlight {
    /// Admissions of the last `TUNING.flight_time`, given their total `now`. After a pause of the
    /// daemon these are the admissions of the whole pause, which errs on the safe side.
    pub fn observe(&mut self, now: Duration, total: u64) -> u64 {
        while self.samples.get(1).is_some_and(|&(at, _)| at + TUNING.flight_time <= now) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, total));
        self.samples.front().map_or(0, |&(_, before)| total.saturating_sub(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_in_flight_at_the_start() {
        assert_eq!(InFlight::default().observe(milliseconds(0), 5000), 0);
    }

    #[test]
    fn only_the_last_ten_milliseconds_count() {
        let mut in_flight = InFlight::default();
        for tick in 0..100 {
            in_flight.observe(milliseconds(tick), tick * 3);
        }
        assert_eq!(in_flight.observe(milliseconds(100), 300), 30);
    }

    #[test]
    fn after_a_pause_the_whole_pause_counts() {
        let mut in_flight = InFlight::default();
        in_flight.observe(milliseconds(0), 100);
        in_flight.observe(milliseconds(100), 150);
        assert_eq!(in_flight.observe(milliseconds(105), 160), 60);
        assert_eq!(in_flight.observe(milliseconds(205), 170), 10);
    }

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }
}
