//! Bounds what commands add to the events: a script that denies hundreds of prefixes a minute would
//! push out what the daemon did.

use serde::{Deserialize, Serialize};

use crate::events::What;

/// Events about changes that are recorded in a minute.
const MOST: u32 = 30;
const MINUTE_SECONDS: u64 = 60;

/// What commands did in this minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pace {
    /// When it began, since 1970.
    began: u64,
    recorded: u32,
    left_out: u64,
}

impl Pace {
    /// What to record where `what` happens `now`, in seconds since 1970: also that something was left
    /// out before.
    pub(super) fn record(&mut self, what: What, now: u64) -> Vec<What> {
        let mut recorded = Vec::new();
        if !(self.began..self.began.saturating_add(MINUTE_SECONDS)).contains(&now) {
            if self.left_out > 0 {
                recorded.push(note(format!(
                    "{} more that were not recorded one by one",
                    self.left_out
                )));
            }
            *self = Self { began: now, ..Self::default() };
        }
        if !matches!(what, What::Changed { .. }) {
            recorded.push(what);
        } else if self.recorded < MOST {
            self.recorded += 1;
            recorded.push(what);
        } else {
            if self.left_out == 0 {
                recorded.push(note("more, too many to be recorded one by one".to_owned()));
            }
            self.left_out += 1;
        }
        recorded
    }
}

fn note(change: String) -> What {
    What::Changed { changes: vec![change] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(host: u32) -> What {
        note(format!("deny + 192.0.2.{host}/32"))
    }

    #[test]
    fn a_few_changes_are_recorded_as_they_are() {
        let mut pace = Pace::default();
        for minute in 0..5 {
            for host in 0..MOST {
                assert_eq!(pace.record(denied(host), 1000 + 60 * minute), [denied(host)]);
            }
        }
    }

    /// Fails when a script pushes out what the daemon did, or when nobody is told that it was left out.
    #[test]
    fn of_a_script_that_changes_hundreds_a_minute_the_rest_is_counted() {
        let mut pace = Pace::default();
        let all: Vec<_> = (0..400).flat_map(|host| pace.record(denied(host), 1000)).collect();
        assert_eq!(all.len(), MOST as usize + 1);
        assert_eq!(all[MOST as usize], note("more, too many to be recorded one by one".to_owned()));
        assert_eq!(pace.record(What::Stopped, 1030), [What::Stopped], "others are never left out");
        let left_out = note("370 more that were not recorded one by one".to_owned());
        assert_eq!(pace.record(denied(7), 1060), [left_out, denied(7)]);
        assert_eq!(pace.record(What::Stopped, 1200), [What::Stopped]);
    }

    #[test]
    fn a_clock_that_was_set_back_begins_another_minute() {
        let mut pace = Pace { began: 5000, recorded: MOST, left_out: 3 };
        assert_eq!(pace.record(denied(1), 100).len(), 2);
        assert_eq!(pace.began, 100);
    }
}
