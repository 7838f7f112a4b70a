//! Whether a change helped, from how it was before and what was watched since.

use std::time::Duration;

use serde::Serialize;

use super::{reading::Before, watch::Interval};
use crate::doctor::text::per_cent;

/// A table that is fuller is in trouble: `doctor` warns there.
const FULL: f64 = 0.75;
const HOUR_SECONDS: f64 = 3600.0;

/// Whether a change helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Helped,
    /// Less is lost than before, or nothing, and the table is nearly full even so.
    NotEnough,
    /// Nothing has happened that would tell.
    Undecided,
    DidNotHelp,
}

/// What was watched, in sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Watched {
    pub(crate) verdict: Verdict,
    /// In a sentence with its numbers.
    pub(crate) because: String,
    pub(crate) seconds: f64,
    /// The most entries that were seen, and their share of the maximum at that time.
    pub(crate) peak: u64,
    pub(crate) peak_fill_ratio: f64,
    /// The maximum before anything was applied, and now.
    pub(crate) max_before: u64,
    pub(crate) max: u64,
    /// New flows dropped for a full table.
    pub(crate) dropped: u64,
    /// Entries thrown away to make room.
    pub(crate) early_dropped: u64,
    /// New flows that the guard refused; null where none was loaded.
    pub(crate) refused: Option<u64>,
    /// Null where it is not known, or of another network namespace.
    pub(crate) before: Option<Before>,
}

/// Judges what was watched; `max_before` is the maximum before anything was applied.
pub(crate) fn judge(max_before: u64, before: Option<Before>, intervals: &[Interval]) -> Watched {
    let peak_ratio = |intervals: &[Interval]| intervals.iter().map(fill).fold(0.0, f64::max);
    let later = intervals.get(intervals.len() / 2..).unwrap_or_default();
    let refused = intervals.iter().filter_map(|interval| interval.refused);
    let mut watched = Watched {
        verdict: Verdict::Undecided,
        because: String::new(),
        seconds: intervals.iter().map(|interval| interval.seconds).sum(),
        peak: intervals.iter().map(|interval| interval.peak).max().unwrap_or(0),
        peak_fill_ratio: peak_ratio(intervals),
        max_before,
        max: intervals.last().map_or(max_before, |interval| interval.max),
        dropped: intervals.iter().map(|interval| interval.dropped).sum(),
        early_dropped: intervals.iter().map(|interval| interval.early_dropped).sum(),
        refused: refused.reduce(u64::saturating_add),
        before,
    };
    let (verdict, because) = watched.judged(peak_ratio(later));
    watched.verdict = verdict;
    watched.because = because;
    watched
}

/// At most, within an interval; nothing without a limit.
fn fill(interval: &Interval) -> f64 {
    ratio(interval.peak, interval.max)
}

#[expect(clippy::cast_precision_loss, reason = "tables have fewer than 2^52 entries")]
fn ratio(count: u64, max: u64) -> f64 {
    if max == 0 { 0.0 } else { count as f64 / max as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 flows are dropped")]
fn hourly(number: u64, seconds: f64) -> f64 {
    number as f64 * HOUR_SECONDS / seconds.max(1.0)
}

impl Watched {
    pub(crate) fn span(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds.ceil()).unwrap_or_default()
    }

    fn judged(&self, later_ratio: f64) -> (Verdict, String) {
        if self.dropped > 0 { self.of_drops() } else { self.of_fill(later_ratio) }
    }

    /// The table has overflowed even so. Without a rate of before nobody can say that it is no
    /// better.
    fn of_drops(&self) -> (Verdict, String) {
        let span = humantime::format_duration(self.span());
        let now = format!("{} new flows were dropped for a full table in {span}", self.dropped);
        let doctor = "`ctguard doctor` names what fills it";
        let Some(before) = self.before else {
            return (Verdict::NotEnough, format!("{now}: {doctor}"));
        };
        let uptime = Duration::from_secs(before.uptime_seconds);
        let hourly_before = hourly(before.reading.dropped, uptime.as_secs_f64());
        let hourly_now = hourly(self.dropped, self.seconds);
        let because =
            format!("{now}, {hourly_now:.0} an hour; before, {hourly_before:.0} an hour: {doctor}");
        let is_better = hourly_now * 2.0 <= hourly_before;
        (if is_better { Verdict::NotEnough } else { Verdict::DidNotHelp }, because)
    }

    /// Nothing was dropped.
    fn of_fill(&self, later_ratio: f64) -> (Verdict, String) {
        let Self { peak, max_before, .. } = self;
        if self.max_before > 0 && self.peak > self.max_before {
            let because = format!(
                "{peak} entries at once are more than the {max_before} of before, and no new flow \
                 was dropped"
            );
            return (Verdict::Helped, because);
        }
        let later = per_cent(later_ratio);
        let before = self.before.map_or(0.0, |before| ratio(before.reading.count, *max_before));
        if before >= FULL && later_ratio < FULL {
            let because = format!(
                "the table was {} full before, and at most {later} in the later half of the watch",
                per_cent(before)
            );
            return (Verdict::Helped, because);
        }
        if later_ratio >= FULL {
            let because = format!(
                "no new flow was dropped, but the table is still up to {later} full: `ctguard \
                 doctor` names what fills it"
            );
            return (Verdict::NotEnough, because);
        }
        let because = format!(
            "there were at most {peak} entries, which the {max_before} of before had held as well: \
             nothing has happened that would tell"
        );
        (Verdict::Undecided, because)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::reading::Reading;

    const OLD: u64 = 65_536;
    const NEW: u64 = 262_144;

    fn before(count: u64, dropped: u64, hours: u64) -> Before {
        let reading = Reading { count, max: OLD, dropped, early_dropped: 0 };
        Before { namespace: 1, uptime_seconds: hours * 3600, reading }
    }

    fn hours(peaks: &[u64], dropped: u64) -> Vec<Interval> {
        let hour = |peak: &u64| Interval {
            at: String::new(),
            seconds: HOUR_SECONDS,
            count: *peak,
            peak: *peak,
            max: NEW,
            dropped,
            early_dropped: 0,
            refused: None,
        };
        peaks.iter().map(hour).collect()
    }

    fn verdict(before: impl Into<Option<Before>>, intervals: &[Interval]) -> Verdict {
        judge(OLD, before.into(), intervals).verdict
    }

    #[test]
    fn entries_that_the_old_table_had_not_held_show_that_it_helped() {
        let watched = judge(OLD, Some(before(100, 0, 10)), &hours(&[100, 90_000, 100, 100], 0));
        assert_eq!(watched.verdict, Verdict::Helped);
        assert_eq!((watched.peak, watched.seconds), (90_000, 4.0 * HOUR_SECONDS));
        assert!(watched.because.starts_with("90000 entries"), "{}", watched.because);
    }

    /// Old entries keep their timeouts: what counts is where it came to.
    #[test]
    fn a_table_that_was_nearly_full_and_no_more_is_shows_that_it_helped() {
        let nearly_full = before(64_000, 0, 10);
        assert_eq!(verdict(nearly_full, &hours(&[64_000, 30_000, 20_000], 0)), Verdict::Helped);
        assert_eq!(verdict(nearly_full, &hours(&[250_000, 250_000], 0)), Verdict::Helped);
    }

    /// Fails when somebody is told that what they did helped, of a night in which nothing happened.
    #[test]
    fn a_quiet_time_decides_nothing_whatever_was_lost_before() {
        assert_eq!(verdict(before(100, 0, 10), &hours(&[200], 0)), Verdict::Undecided);
        assert_eq!(verdict(before(100, 1_000_000, 10), &hours(&[200], 0)), Verdict::Undecided);
        assert_eq!(verdict(None, &[]), Verdict::Undecided);
    }

    #[test]
    fn flows_that_are_dropped_as_before_show_that_it_did_not_help() {
        let full = hours(&[NEW, NEW], 500);
        let watched = judge(OLD, Some(before(OLD, 6000, 10)), &full);
        assert_eq!(watched.verdict, Verdict::DidNotHelp);
        assert!(watched.because.contains("500 an hour; before, 600 an hour"), "{watched:?}");
        assert_eq!(verdict(before(OLD, 60_000, 10), &full), Verdict::NotEnough);
    }

    /// Fails when a change is taken back that nobody can say was useless.
    #[test]
    fn flows_that_are_dropped_when_nobody_knows_how_many_were_are_no_proof_against_it() {
        assert_eq!(verdict(None, &hours(&[NEW, NEW], 500)), Verdict::NotEnough);
    }

    #[test]
    fn a_table_that_stays_full_without_losing_anything_is_not_enough() {
        let small = Interval { max: OLD, ..hours(&[60_000], 0).remove(0) };
        assert_eq!(verdict(before(60_000, 0, 10), &[small]), Verdict::NotEnough);
    }

    #[test]
    fn refusals_are_added_where_there_was_a_guard() {
        let with = |refused| Interval { refused, ..hours(&[10], 0).remove(0) };
        assert_eq!(judge(OLD, None, &[with(None), with(Some(3)), with(Some(4))]).refused, Some(7));
        assert_eq!(judge(OLD, None, &[with(None)]).refused, None);
    }
}
