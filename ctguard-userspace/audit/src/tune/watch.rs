//! What the table held and lost just before a change, and what it does afterwards, in intervals.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::host::{Host, Losses, Lost, Statistics, TableNumbers, Unread};
use ctguard_units::real;

/// How long losses before a change are counted.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub count: u64,
    /// 0 is no limit.
    pub max: u64,
    /// None where they cannot be read.
    pub losses: Option<Losses>,
}

/// The table just before a change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// None for another network namespace.
    pub count: Option<u64>,
    /// 0 is no limit.
    pub max: u64,
    /// New flows dropped and entries evicted; none where the kernel does not count them.
    pub lost_per_second: Option<f64>,
}

impl Reading {
    /// None where conntrack is not loaded.
    pub fn take(host: &Host) -> Result<Option<Self>, Unread> {
        let Some(table) = TableNumbers::read(host)? else { return Ok(None) };
        let losses = Statistics::read(host)?.map(|counters| counters.losses());
        Ok(Some(Self { count: table.count, max: table.max, losses }))
    }
}

impl Before {
    /// None where conntrack is not loaded.
    pub fn take(host: &Host) -> Result<Option<Self>, Unread> {
        let began = Instant::now();
        let Some(first) = Reading::take(host)? else { return Ok(None) };
        if host.is_this() {
            thread::sleep(LOOK);
        }
        let Some(then) = Reading::take(host)? else { return Ok(None) };
        let seconds = began.elapsed().max(LOOK).as_secs_f64();
        let lost = first.losses.zip(then.losses).map(|(first, then)| then.since(first));
        let per_second = |lost: Lost| real(lost.dropped + lost.early_dropped) / seconds;
        let lost_per_second = lost.map(per_second);
        Ok(Some(Self { count: Some(then.count), max: then.max, lost_per_second }))
    }
}

/// What happened between two lines of the journal. A count is none where the kernel has no counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it ended, as RFC 3339 has it.
    pub at: String,
    pub seconds: f64,
    pub count: u64,
    pub peak: u64,
    /// 0 is no limit.
    pub max: u64,
    /// New flows dropped because the table was full.
    pub dropped: Option<u64>,
    /// Entries evicted to make room.
    pub early_dropped: Option<u64>,
    /// New flows that the guard refused; none where none is loaded.
    pub refused: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub struct Watch {
    start: Reading,
    now: Reading,
    refused: Option<u64>,
    peak: u64,
}

impl Watch {
    pub const fn begin(start: Reading, refused: Option<u64>) -> Self {
        Self { start, now: start, refused, peak: start.count }
    }

    pub fn see(&mut self, now: Reading) {
        self.now = now;
        self.peak = self.peak.max(now.count);
    }

    /// Ends the interval at the last reading, after `length`, and begins the next.
    pub fn end(&mut self, refused: Option<u64>, length: Duration, at: String) -> Interval {
        let Self { start, now, peak, .. } = *self;
        let lost = start.losses.zip(now.losses).map(|(start, now)| now.since(start));
        let interval = Interval {
            at,
            seconds: length.as_secs_f64(),
            count: now.count,
            peak,
            max: now.max,
            dropped: lost.map(|lost| lost.dropped),
            early_dropped: lost.map(|lost| lost.early_dropped),
            // The counter starts again with the guard.
            refused: self
                .refused
                .zip(refused)
                .map(|(then, now)| now.checked_sub(then).unwrap_or(now)),
        };
        *self = Self::begin(now, refused);
        interval
    }
}

/// A thousandth of the watch, at least a second and at most a minute.
pub fn interval_of(span: Duration) -> Duration {
    (span / 1000).clamp(Duration::from_secs(1), Duration::from_mins(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{STATISTICS, testing::Fake};

    const SECOND: Duration = Duration::from_secs(1);

    fn reading(count: u64, dropped: u64) -> Reading {
        let text = format!("drop early_drop\n{dropped:x} 0\n");
        let fake = Fake::new(&format!("tune-watch-{count}-{dropped}"), &[(STATISTICS, &text)]);
        let counters = Statistics::read(&fake.host).unwrap().unwrap();
        Reading { count, max: 1000, losses: Some(counters.losses()) }
    }

    #[test]
    fn an_interval_has_its_peak_and_what_was_counted_within() {
        let mut watch = Watch::begin(reading(10, 100), Some(7));
        watch.see(reading(900, 120));
        watch.see(reading(40, 135));
        let first = watch.end(Some(9), SECOND, String::new());
        assert_eq!((first.count, first.peak), (40, 900));
        assert_eq!((first.dropped, first.refused), (Some(35), Some(2)));
        watch.see(reading(30, 135));
        let next = watch.end(None, SECOND, String::new());
        assert_eq!((next.peak, next.dropped, next.refused), (40, Some(0), None));
    }

    /// Fails when a kernel that counts no losses is told to have none.
    #[test]
    fn what_the_kernel_does_not_count_is_not_told_as_none() {
        let mut watch = Watch::begin(Reading { losses: None, ..reading(10, 1) }, None);
        watch.see(Reading { losses: None, ..reading(11, 1) });
        let interval = watch.end(None, SECOND, String::new());
        assert_eq!((interval.dropped, interval.early_dropped), (None, None));
    }

    #[test]
    fn a_watch_of_days_has_a_line_each_minute_and_a_short_one_each_second() {
        assert_eq!(interval_of(Duration::from_hours(72)), Duration::from_mins(1));
        assert_eq!(interval_of(Duration::from_hours(2)), Duration::from_millis(7200));
        assert_eq!(interval_of(Duration::from_secs(5)), SECOND);
    }
}
