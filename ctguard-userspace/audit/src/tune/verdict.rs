//! Whether a change helped, from how it was just before and what was watched since.
//!
//! What counts is the later half of the watch: entries that were there keep their old timeouts.

use std::time::Duration;

use serde::Serialize;

use super::{reading::Before, watch::Interval};
use crate::doctor::{FULL_TABLE, text::per_cent};

/// A table that was half full and is half as full has become emptier.
const HALF: f64 = 0.5;
/// Losses of before are too few to compare with, in so short a look.
const COMPARABLE_PER_SECOND: f64 = 30.0;

/// Whether a change helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Helped,
    /// Flows are lost, or nearly: nobody can say that it is no better.
    NotEnough,
    /// Nothing has happened that would tell.
    Undecided,
    /// As many are lost as before.
    DidNotHelp,
    /// Somebody has set something else.
    NotInForce,
}

/// What was watched, in sum.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Watched {
    pub verdict: Verdict,
    /// In a sentence with its numbers.
    pub because: String,
    pub seconds: f64,
    /// The most entries that were seen, and the largest share of the maximum.
    pub peak: u64,
    pub peak_fill_ratio: f64,
    pub max: u64,
    /// New flows dropped for a full table; null where the kernel does not tell.
    pub dropped: Option<u64>,
    /// Entries thrown away to make room; null where the kernel does not tell.
    pub early_dropped: Option<u64>,
    /// New flows that the guard refused; null where none was loaded.
    pub refused: Option<u64>,
    pub before: Before,
}

/// Part of a watch.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    seconds: f64,
    fill_ratio: f64,
    dropped: u64,
    early_dropped: u64,
}

/// Judges what was watched since `before`.
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
    let (verdict, because) = watched.judged(later_half(intervals, all.seconds));
    watched.verdict = verdict;
    watched.because = because;
    watched
}

/// The shortest end of a watch that is half of it or more.
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

#[expect(clippy::cast_precision_loss, reason = "tables have fewer than 2^52 entries")]
fn ratio(count: u64, max: u64) -> f64 {
    if max == 0 { 0.0 } else { count as f64 / max as f64 }
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

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 flows are lost")]
    fn lost_per_second(self) -> f64 {
        add(self.dropped, self.early_dropped) as f64 / self.seconds.max(0.1)
    }

    fn loses(self) -> bool {
        self.dropped > 0 || self.early_dropped > 0
    }

    fn span(self) -> String {
        shown(self.seconds)
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

    /// The same, of a change that is no more in force.
    #[must_use]
    pub fn not_in_force(self, because: String) -> Self {
        Self { verdict: Verdict::NotInForce, because, ..self }
    }

    fn judged(&self, later: Part) -> (Verdict, String) {
        if later.loses() || later.fill_ratio >= FULL_TABLE {
            self.of_trouble(later)
        } else {
            self.of_calm(later)
        }
    }

    /// The table is full even so, or nearly.
    fn of_trouble(&self, later: Part) -> (Verdict, String) {
        let now = if later.loses() {
            format!(
                "{} new flows were dropped for a full table and {} entries thrown away to make \
                 room, {:.0} a second",
                later.dropped,
                later.early_dropped,
                later.lost_per_second()
            )
        } else {
            format!("the table was up to {} full", per_cent(later.fill_ratio))
        };
        let lost_before = self.before.lost_per_second.filter(|lost| *lost > 0.0);
        let compared = lost_before
            .map(|before| format!("; {before:.0} a second just before the change"))
            .unwrap_or_default();
        let because = format!(
            "in the last {} {now}{compared}. `ctguard doctor` names what fills it",
            later.span()
        );
        let as_before = lost_before.is_some_and(|before| {
            before >= COMPARABLE_PER_SECOND && later.lost_per_second() >= before * HALF
        });
        (if as_before { Verdict::DidNotHelp } else { Verdict::NotEnough }, because)
    }

    /// Nothing is lost any more, and there is room.
    fn of_calm(&self, later: Part) -> (Verdict, String) {
        let Self { peak, before, .. } = self;
        let was = before.count.map_or(0.0, |count| ratio(count, before.max));
        let now = format!("at most {} in the last {}", per_cent(later.fill_ratio), later.span());
        if let Some(lost) = before.lost_per_second.filter(|lost| *lost > 0.0) {
            let because = format!(
                "{lost:.0} flows a second were lost just before the change, and none in the last {}",
                later.span()
            );
            return (Verdict::Helped, because);
        }
        if was >= FULL_TABLE || was >= HALF && later.fill_ratio <= was * HALF {
            let because =
                format!("the table was {} full just before the change, and {now}", per_cent(was));
            return (Verdict::Helped, because);
        }
        if before.max > 0 && self.peak > before.max && !self.lost() {
            let because = format!(
                "{peak} entries at once are more than the {} of before, and nothing was lost",
                before.max
            );
            return (Verdict::Helped, because);
        }
        if self.lost() {
            let because = format!(
                "the table was full for a time, and {now}. `ctguard doctor` names what fills it"
            );
            return (Verdict::NotEnough, because);
        }
        let because = format!(
            "there were at most {peak} entries, which the {} of before had held as well",
            before.max
        );
        (Verdict::Undecided, because)
    }

    fn lost(&self) -> bool {
        self.dropped.is_some_and(|dropped| dropped > 0)
            || self.early_dropped.is_some_and(|dropped| dropped > 0)
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
        assert!(watched.because.starts_with("90000 entries"), "{}", watched.because);
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
        assert!(watched.because.contains("100 a second; 120 a second just before"), "{watched:?}");
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
        assert!(watched.because.contains("5000000 entries thrown away"), "{watched:?}");
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
