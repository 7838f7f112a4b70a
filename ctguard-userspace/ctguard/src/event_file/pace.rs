//! Bounds what commands add to the events: a script that denies hundreds of prefixes a minute would
//! push out what the daemon did.

use serde::{Deserialize, Serialize};

use crate::{events::What, plural::counted};

/// Changes of lists that are recorded one by one in a minute.
const MOST: u32 = 30;
const MINUTE_SECONDS: u64 = 60;

/// What commands did to lists in this minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pace {
    /// When it began, in seconds since 1970.
    began: u64,
    recorded: u32,
    left_out: u64,
}

/// How many changes of a minute were left out.
#[derive(Debug, PartialEq)]
pub(super) struct LeftOut {
    /// When the minute began, in seconds since 1970.
    pub(super) began: u64,
    pub(super) what: What,
}

impl Pace {
    /// Takes what an earlier minute left out, if it is over `now` (in seconds since 1970).
    pub(super) fn take_left_out(&mut self, now: u64) -> Option<LeftOut> {
        if self.left_out == 0 || self.is_in_minute(now) {
            return None;
        }
        let Self { began, left_out, .. } = std::mem::take(self);
        let changes = counted(left_out, "more change", "more changes");
        let change = format!("{changes} of lists in the minute from then on");
        Some(LeftOut { began, what: What::Changed { changes: vec![change] } })
    }

    /// Whether to record a change of a list that happens `now`, in seconds since 1970.
    pub(super) fn admits(&mut self, now: u64) -> bool {
        if !self.is_in_minute(now) {
            *self = Self { began: now, ..Self::default() };
        }
        let is_admitted = self.recorded < MOST;
        if is_admitted {
            self.recorded += 1;
        } else {
            self.left_out += 1;
        }
        is_admitted
    }

    /// A clock that was set back is in another minute.
    fn is_in_minute(&self, now: u64) -> bool {
        (self.began..self.began.saturating_add(MINUTE_SECONDS)).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_changes_are_recorded_as_they_are() {
        let mut pace = Pace::default();
        for minute in 0..5 {
            let now = 1000 + 60 * minute;
            assert_eq!(pace.take_left_out(now), None);
            assert!((0..MOST).all(|_| pace.admits(now)));
        }
    }

    /// Fails when nobody is told that something was left out, or of which minute that was.
    #[test]
    fn of_a_script_that_changes_hundreds_a_minute_the_rest_is_counted() {
        let mut pace = Pace::default();
        assert_eq!((0..400).filter(|second| pace.admits(1000 + second / 10)).count(), 30);
        assert_eq!(pace.take_left_out(1059), None, "the minute goes on");
        let left_out = pace.take_left_out(5000).unwrap();
        assert_eq!(left_out.began, 1000);
        let text = "370 more changes of lists in the minute from then on".to_owned();
        assert_eq!(left_out.what, What::Changed { changes: vec![text] });
        assert_eq!(pace.take_left_out(5000), None, "told once");
        assert!(pace.admits(5000));
    }

    #[test]
    fn a_clock_that_was_set_back_begins_another_minute() {
        let mut pace = Pace { began: 5000, recorded: MOST, left_out: 3 };
        assert_eq!(pace.take_left_out(100).unwrap().began, 5000);
        assert!(pace.admits(100));
        assert_eq!(pace.began, 100);
    }
}
