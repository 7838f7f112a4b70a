//! Notices that many frames pass unjudged, because their headers cannot be read.

use std::time::Duration;

use crate::report::MOST_UNREADABLE;
use ctguard_units::real;

/// Frames are compared over at least so long, and at least so many of them.
const WINDOW: Duration = Duration::from_secs(10);
const FRAMES: u64 = 1000;

/// Since the guard was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at: Duration,
    pub(super) frames: u64,
    pub(super) unreadable: u64,
}

#[derive(Debug, Default)]
pub(super) struct Unreadable {
    since: Option<Seen>,
    is_fault: bool,
}

impl Unreadable {
    /// The share of unreadable frames, if it has risen above or fallen below what is a fault.
    pub(super) fn change(&mut self, now: Seen) -> Option<f64> {
        let since = *self.since.get_or_insert(now);
        let frames = now.frames.saturating_sub(since.frames);
        if now.at < since.at + WINDOW || frames < FRAMES {
            return None;
        }
        self.since = Some(now);
        let share = real(now.unreadable.saturating_sub(since.unreadable)) / real(frames);
        let is_fault = share > MOST_UNREADABLE;
        let has_changed = is_fault != self.is_fault;
        self.is_fault = is_fault;
        has_changed.then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: u64, frames: u64, unreadable: u64) -> Seen {
        Seen { at: Duration::from_secs(seconds), frames, unreadable }
    }

    #[test]
    fn a_fault_begins_above_one_in_a_hundred_and_ends_below() {
        let mut noticed = Unreadable::default();
        assert_eq!(noticed.change(seen(0, 0, 0)), None);
        assert_eq!(noticed.change(seen(10, 10_000, 100)), None, "just one in a hundred");
        assert_eq!(noticed.change(seen(20, 20_000, 400)), Some(0.03));
        assert_eq!(noticed.change(seen(30, 30_000, 900)), None, "it goes on");
        assert_eq!(noticed.change(seen(40, 40_000, 900)), Some(0.0));
    }

    #[test]
    fn few_frames_and_a_moment_tell_nothing() {
        let mut noticed = Unreadable::default();
        assert_eq!(noticed.change(seen(0, 0, 0)), None);
        assert_eq!(noticed.change(seen(9, 50_000, 50_000)), None);
        let mut noticed = Unreadable::default();
        assert_eq!(noticed.change(seen(0, 0, 0)), None);
        assert_eq!(noticed.change(seen(20, 999, 999)), None);
        assert_eq!(noticed.change(seen(30, 1000, 1000)), Some(1.0), "they add up");
    }
}
