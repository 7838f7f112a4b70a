//! Never worse than no guard: both runs beside each other, two seconds at a time.

use crate::report::{Run, Success, ratio};

/// Seconds of a window.
const WINDOW: u32 = 2;
/// Windows begin so many seconds after the flood, or after a guard that comes in its midst.
const SETTLING: f64 = 3.0;
/// So much less may succeed in a window …
const NO_WORSE: f64 = 0.02;
/// … or so many standard errors of the difference: what is left to chance.
const CHANCE: f64 = 3.0;

/// The window in which the guarded run lacks most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Worst {
    /// Its first second, from the flood's begin.
    pub(super) second: u32,
    pub(super) guarded: Success,
    pub(super) unguarded: Success,
    /// Whether every window is no worse.
    pub(super) held: bool,
}

/// None where the runs have no window in common.
pub(super) fn worst(guarded: &Run, unguarded: &Run) -> Option<Worst> {
    let first = first_second(guarded)?.max(first_second(unguarded)?);
    let (flood, end) = guarded.flood_seconds?;
    let windows = (first..).step_by(WINDOW as usize);
    let windows = windows.take_while(|second| f64::from(second + WINDOW) <= end);
    let compared: Vec<_> = windows
        .map(|second| (second, within(guarded, second), within(unguarded, second)))
        .collect();
    let held = compared.iter().all(|&(_, guarded, unguarded)| is_no_worse(guarded, unguarded));
    let lack = |&(_, guarded, unguarded): &(u32, Success, Success)| {
        unguarded.at_once_ratio() - guarded.at_once_ratio()
    };
    let worst = compared.iter().max_by(|one, other| lack(one).total_cmp(&lack(other)));
    worst.map(|&(second, guarded, unguarded)| {
        let second = second - whole_seconds(flood);
        Worst { second, guarded, unguarded, held }
    })
}

/// The first second of the run whose flows count.
fn first_second(run: &Run) -> Option<u32> {
    let (flood, _) = run.flood_seconds?;
    let late = run.recovery.filter(|_| run.outage.is_none());
    let start = late.map_or(flood, |late| late.started_seconds);
    Some(whole_seconds(start + SETTLING))
}

/// A flood begins some milliseconds after a whole second.
fn whole_seconds(seconds: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a short time")]
    let whole = (seconds + 0.5).floor().max(0.0) as u32;
    whole
}

fn within(run: &Run, second: u32) -> Success {
    let points = run.legitimate.over_time.iter();
    let points = points.filter(|point| (second..second + WINDOW).contains(&point.seconds));
    points.fold(Success::default(), |sum, point| sum.with(point.success))
}

fn is_no_worse(guarded: Success, unguarded: Success) -> bool {
    let variance = |success: Success| {
        let share = success.at_once_ratio();
        share * (1.0 - share) * ratio(1, success.attempted.max(1))
    };
    let chance = CHANCE * (variance(guarded) + variance(unguarded)).sqrt();
    unguarded.at_once_ratio() - guarded.at_once_ratio() <= chance.max(NO_WORSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(at_once: u64) -> Success {
        Success { attempted: 360, at_once, eventually: at_once }
    }

    #[test]
    fn two_points_and_chance_are_forgiven_and_no_more() {
        assert!(is_no_worse(of(353), of(360)));
        assert!(!is_no_worse(of(300), of(360)));
        assert!(is_no_worse(of(170), of(190)), "a matter of chance");
        assert!(!is_no_worse(of(100), of(190)));
    }

    #[test]
    fn who_did_not_try_did_not_fail() {
        assert!(is_no_worse(Success::default(), Success::default()));
    }
}
