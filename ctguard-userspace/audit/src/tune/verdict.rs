//! Whether a change helped, from the table just before it and the watch since.
//!
//! The later half of the watch counts, because old entries keep their old timeouts.

use std::time::Duration;

use serde::Serialize;

use super::watch::{Before, Interval};
use crate::doctor::{NEARLY_FULL, per_cent};
use ctguard_units::real;

/// A table that was this full, and now is less than half as full, has improved.
const HALF: f64 = 0.5;
/// Fewer losses before the change are too few to compare with.
const COMPARABLE_PER_SECOND: f64 = 30.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Helped,
    /// Flows are still lost, or nearly, though perhaps fewer.
    NotEnough,
    /// Nothing happened that would show it.
    Undecided,
    /// As many flows are lost as before.
    DidNotHelp,
    /// Somebody has changed the settings.
    NotInForce,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Watched {
    pub verdict: Verdict,
    pub because: String,
    pub seconds: f64,
    /// The most entries, and the largest share of the maximum.
    pub peak: u64,
    pub peak_fill_ratio: f64,
    pub max: u64,
    /// As in [`Interval`].
    pub dropped: Option<u64>,
    pub early_dropped: Option<u64>,
    pub refused: Option<u64>,
    pub before: Before,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    seconds: f64,
    fill_ratio: f64,
    dropped: u64,
    early_dropped: u64,
}

pub(super) fn judge(before: Before, intervals: &[Interval]) -> Watched {
    let sum = |of: fn(&Interval) -> Option<u64>| intervals.iter().filter_map(of).reduce(add);
    let all = Part::of(intervals.iter());
    let mut watched = Watched {
        verdict: Verdict::Undecided,
        because: String::new(),
        seconds: all.seconds,
        peak: intervals.iter().map(|interval| interval.peak).max().unwrap_or(0),
        peak_fill_ratio: all.fill_ratio,
        max: intervals.last().map_or(before.max, |interval| interval.max),
        dropped: sum(|interval| interval.dropped),
        early_dropped: sum(|interval| interval.early_dropped),
        refused: sum(|interval| interval.refused),
        before,
    };
    let later = later_half(intervals, all.seconds);
    let is_calm = !later.loses() && later.fill_ratio < NEARLY_FULL;
    let judged = if is_calm { watched.of_calm(later) } else { watched.of_trouble(later) };
    (watched.verdict, watched.because) = judged;
    watched
}

/// The last intervals that make up at least half of the time.
fn later_half(intervals: &[Interval], seconds: f64) -> Part {
    let mut left = seconds / 2.0;
    Part::of(intervals.iter().rev().take_while(|interval| {
        let belongs = left > 0.0;
        left -= interval.seconds;
        belongs
    }))
}

const fn add(one: u64, other: u64) -> u64 {
    one.saturating_add(other)
}

fn ratio(count: u64, max: u64) -> f64 {
    if max == 0 { 0.0 } else { real(count) / real(max) }
}

impl Part {
    fn of<'i>(intervals: impl Iterator<Item = &'i Interval>) -> Self {
        intervals.fold(Self::default(), |part, interval| Self {
            seconds: part.seconds + interval.seconds,
            fill_ratio: part.fill_ratio.max(ratio(interval.peak, interval.max)),
            dropped: add(part.dropped, interval.dropped.unwrap_or(0)),
            early_dropped: add(part.early_dropped, interval.early_dropped.unwrap_or(0)),
        })
    }

    fn lost_per_second(self) -> f64 {
        real(add(self.dropped, self.early_dropped)) / self.seconds.max(0.1)
    }

    fn loses(self) -> bool {
        self.dropped > 0 || self.early_dropped > 0
    }
}

fn shown(seconds: f64) -> String {
    let span = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or_default();
    humantime::format_duration(span).to_string()
}

impl Watched {
    pub fn span(&self) -> String {
        shown(self.seconds)
    }

    /// The same, unless the change is no longer in force.
    #[must_use]
    pub fn unless_lapsed(self, why: Option<String>) -> Self {
        let Some(because) = why else { return self };
        Self { verdict: Verdict::NotInForce, because, ..self }
    }

    fn of_trouble(&self, later: Part) -> (Verdict, String) {
        let Part { dropped, early_dropped, .. } = later;
        let (rate, span) = (later.lost_per_second(), shown(later.seconds));
        let now = if later.loses() {
            let lost = format!("{dropped} new flows were dropped and {early_dropped} entries");
            format!("{lost} evicted because the table was full, {rate:.0} a second")
        } else {
            format!("the table was up to {} full", per_cent(later.fill_ratio))
        };
        let lost_before = self.before.lost_per_second.filter(|lost| *lost > 0.0);
        let compared = lost_before.map(|lost| format!("; {lost:.0} a second before the change"));
        let compared = compared.unwrap_or_default();
        let because =
            format!("in the last {span} {now}{compared}. `ctguard doctor` says what fills it");
        let as_before = lost_before
            .is_some_and(|before| before >= COMPARABLE_PER_SECOND && rate >= before * HALF);
        (if as_before { Verdict::DidNotHelp } else { Verdict::NotEnough }, because)
    }

    fn of_calm(&self, later: Part) -> (Verdict, String) {
        let Self { peak, before, .. } = self;
        let (max, span) = (before.max, shown(later.seconds));
        let was = before.count.map_or(0.0, |count| ratio(count, max));
        let now = format!("at most {} in the last {span}", per_cent(later.fill_ratio));
        let lost = [self.dropped, self.early_dropped].into_iter().flatten().any(|lost| lost > 0);
        if let Some(lost) = before.lost_per_second.filter(|lost| *lost > 0.0) {
            let before = format!("{lost:.0} flows a second were lost before the change");
            (Verdict::Helped, format!("{before}, and none in the last {span}"))
        } else if was >= NEARLY_FULL || was >= HALF && later.fill_ratio <= was * HALF {
            let before = format!("the table was {} full before the change", per_cent(was));
            (Verdict::Helped, format!("{before}, and {now}"))
        } else if lost {
            let lost = "the table was full for a time";
            (Verdict::NotEnough, format!("{lost}, and {now}. `ctguard doctor` says what fills it"))
        } else if max > 0 && *peak > max {
            let held = format!("the table held {peak} entries at once");
            let more = format!("{held}, more than the old maximum of {max}");
            (Verdict::Helped, format!("{more}, and nothing was lost"))
        } else {
            let held = format!("the table held at most {peak} entries");
            (Verdict::Undecided, format!("{held}, which the old maximum of {max} had room for too"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u64 = 65_536;
    const NEW: u64 = 262_144;
    const CALM: Before = Before { count: Some(100), max: OLD, lost_per_second: Some(0.0) };
    const HOUR: f64 = 3600.0;

    fn hour(peak: u64, dropped: u64) -> Interval {
        Interval {
            at: String::new(),
            seconds: HOUR,
            count: peak,
            peak,
            max: NEW,
            dropped: Some(dropped),
            early_dropped: Some(0),
            refused: None,
        }
    }

    fn hours(peaks: &[u64]) -> Vec<Interval> {
        peaks.iter().map(|peak| hour(*peak, 0)).collect()
    }

    fn verdict(before: Before, intervals: &[Interval]) -> Verdict {
        judge(before, intervals).verdict
    }

    #[test]
    fn entries_that_the_old_table_had_not_held_show_that_it_helped() {
        let watched = judge(CALM, &hours(&[100, 90_000, 100, 100]));
        assert_eq!(watched.verdict, Verdict::Helped);
        assert_eq!((watched.peak, watched.seconds), (90_000, 4.0 * HOUR));
        assert!(watched.because.contains("90000 entries"), "{}", watched.because);
    }

    /// Old entries keep their timeouts: what counts is where it came to.
    #[test]
    fn a_table_that_was_nearly_full_and_no_more_is_shows_that_it_helped() {
        let nearly_full = Before { count: Some(64_000), ..CALM };
        assert_eq!(verdict(nearly_full, &hours(&[64_000, 30_000, 20_000])), Verdict::Helped);
        let half_full = Before { count: Some(40_000), ..CALM };
        let same_table = |peak| Interval { max: OLD, ..hour(peak, 0) };
        assert_eq!(verdict(half_full, &[same_table(40_000), same_table(9000)]), Verdict::Helped);
    }

    #[test]
    fn losses_that_have_ended_show_that_it_helped() {
        let losing = Before { lost_per_second: Some(120.0), ..CALM };
        assert_eq!(verdict(losing, &hours(&[200, 200])), Verdict::Helped);
    }

    /// Fails when somebody is told that what they did helped, of a night in which nothing happened.
    #[test]
    fn a_quiet_time_decides_nothing() {
        assert_eq!(verdict(CALM, &hours(&[200])), Verdict::Undecided);
        assert_eq!(verdict(CALM, &[]), Verdict::Undecided);
    }

    #[test]
    fn as_many_losses_as_just_before_show_that_it_did_not_help() {
        let losing = Before { lost_per_second: Some(120.0), ..CALM };
        let full = |each_second: u64| vec![hour(NEW, each_second * 3600); 2];
        let watched = judge(losing, &full(100));
        assert_eq!(watched.verdict, Verdict::DidNotHelp);
        assert!(watched.because.contains("100 a second; 120 a second before"), "{watched:?}");
        assert_eq!(verdict(losing, &full(12)), Verdict::NotEnough);
    }

    /// Fails when a change is taken back that nobody can say was useless: with nothing lost when it
    /// was made, or for a single flow in days.
    #[test]
    fn losses_that_were_not_there_before_are_no_proof_against_it() {
        assert_eq!(verdict(CALM, &[hour(NEW, 5000)]), Verdict::NotEnough);
        let unknown = Before { lost_per_second: None, ..CALM };
        assert_eq!(verdict(unknown, &[hour(NEW, 5000)]), Verdict::NotEnough);
        assert_eq!(verdict(CALM, &[hour(200, 1), hour(200, 0)]), Verdict::NotEnough);
    }

    /// Fails when a table that throws away its entries for each new flow is called large enough.
    #[test]
    fn a_full_table_is_not_enough_whatever_the_old_one_had_held() {
        assert_eq!(verdict(CALM, &hours(&[250_000, 250_000])), Verdict::NotEnough);
        let thrashing = Interval { early_dropped: Some(5_000_000), ..hour(NEW, 0) };
        let watched = judge(CALM, &[thrashing]);
        assert_eq!(watched.verdict, Verdict::NotEnough);
        assert!(watched.because.contains("5000000 entries evicted"), "{watched:?}");
    }

    /// Fails when many short lines outweigh few long ones.
    #[test]
    fn the_later_half_is_half_of_the_time() {
        let short = |peak| Interval { seconds: 1.0, ..hour(peak, 0) };
        let intervals = [short(NEW), short(NEW), short(NEW), hour(100, 0)];
        assert_eq!(verdict(CALM, &intervals), Verdict::Helped);
    }

    #[test]
    fn refusals_are_added_where_there_was_a_guard() {
        let with = |refused| Interval { refused, ..hour(10, 0) };
        assert_eq!(judge(CALM, &[with(None), with(Some(3)), with(Some(4))]).refused, Some(7));
        assert_eq!(judge(CALM, &[with(None)]).refused, None);
    }
}
