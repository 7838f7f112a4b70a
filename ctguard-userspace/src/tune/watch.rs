//! What the table does after a change: looked at each second, told in intervals.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reading::Reading;

/// What happened between two lines of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    /// When it ended, as RFC 3339 has it.
    pub(crate) at: String,
    pub(crate) seconds: f64,
    /// Entries at its end.
    pub(crate) count: u64,
    /// The most entries that were seen.
    pub(crate) peak: u64,
    /// 0 is no limit.
    pub(crate) max: u64,
    /// New flows dropped for a full table.
    pub(crate) dropped: u64,
    /// Entries thrown away to make room.
    pub(crate) early_dropped: u64,
    /// New flows that the guard refused; none where none is loaded.
    pub(crate) refused: Option<u64>,
}

/// Between two intervals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    start: Reading,
    /// Since the guard was loaded.
    refused: Option<u64>,
    peak: u64,
}

impl Watch {
    pub(crate) const fn begin(start: Reading, refused: Option<u64>) -> Self {
        Self { start, refused, peak: start.count }
    }

    /// Takes a look into account.
    pub(crate) fn see(&mut self, now: Reading) {
        self.peak = self.peak.max(now.count);
    }

    /// Ends the interval, `length` after the one before, and begins the next.
    pub(crate) fn end(
        &mut self,
        now: Reading,
        refused: Option<u64>,
        length: Duration,
        at: String,
    ) -> Interval {
        self.see(now);
        let interval = Interval {
            at,
            seconds: length.as_secs_f64(),
            count: now.count,
            peak: self.peak,
            max: now.max,
            dropped: since(self.start.dropped, now.dropped),
            early_dropped: since(self.start.early_dropped, now.early_dropped),
            refused: self.refused.zip(refused).map(|(before, now)| since(before, now)),
        };
        *self = Self::begin(now, refused);
        interval
    }
}

/// What a counter counted; it began anew with whatever it belongs to.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// A line of the journal for a thousandth of the whole, each minute at least and each second at
/// most.
pub(crate) fn interval_of(span: Duration) -> Duration {
    (span / 1000).clamp(Duration::from_secs(1), Duration::from_mins(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(count: u64, dropped: u64) -> Reading {
        Reading { count, max: 1000, dropped, early_dropped: 0 }
    }

    #[test]
    fn an_interval_has_its_peak_and_what_was_counted_within() {
        let mut watch = Watch::begin(reading(10, 100), Some(7));
        watch.see(reading(900, 120));
        watch.see(reading(50, 130));
        let second = Duration::from_secs(1);
        let first = watch.end(reading(40, 135), Some(9), second, String::new());
        assert_eq!((first.count, first.peak, first.dropped, first.refused), (40, 900, 35, Some(2)));
        let next = watch.end(reading(30, 135), None, second, String::new());
        assert_eq!((next.peak, next.dropped, next.refused), (40, 0, None));
    }

    /// Fails when a boot within a watch makes a counter go round the world.
    #[test]
    fn a_counter_that_began_anew_counts_from_nothing() {
        let mut watch = Watch::begin(reading(10, 100), None);
        let interval = watch.end(reading(10, 3), Some(5), Duration::from_secs(1), String::new());
        assert_eq!((interval.dropped, interval.refused), (3, None));
    }

    #[test]
    fn a_watch_of_days_has_a_line_each_minute_and_a_short_one_each_second() {
        assert_eq!(interval_of(Duration::from_hours(72)), Duration::from_mins(1));
        assert_eq!(interval_of(Duration::from_hours(2)), Duration::from_millis(7200));
        assert_eq!(interval_of(Duration::from_secs(5)), Duration::from_secs(1));
    }
}
