//! Notices entries that neither packets nor an earlier dump told of, such as those that
//! `conntrackd -c` commits at a failover.

use std::time::Duration;

/// More than others open in a second on any calm day; a dump costs more than they do otherwise.
const JUMP: u64 = 1000;
/// A commit of a large table takes seconds, and what comes after a dump began may be missing from it.
const PAUSE: Duration = Duration::from_secs(5);

/// The table at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) at: Duration,
    pub(super) entries: u64,
    pub(super) max: u64,
    /// New flows that the guard has admitted so far.
    pub(super) admitted: u64,
}

#[derive(Debug, Default)]
pub(super) struct Others {
    last: Option<Look>,
    noticed: Option<Duration>,
}

impl Others {
    /// Whether the table has gained many entries since the last look that the guard did not admit: at
    /// least a 256th of it.
    pub(super) fn have_jumped(&mut self, now: Look) -> bool {
        let Some(last) = self.last.replace(now) else { return false };
        let gained = now.entries.saturating_sub(last.entries);
        let others = gained.saturating_sub(now.admitted.saturating_sub(last.admitted));
        let is_jump = others >= JUMP.max(now.max / 256);
        let is_due = self.noticed.is_none_or(|noticed| now.at >= noticed + PAUSE);
        if is_jump && is_due {
            self.noticed = Some(now.at);
        }
        is_jump && is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(seconds: u64, entries: u64, admitted: u64) -> Look {
        Look { at: Duration::from_secs(seconds), entries, max: 65_536, admitted }
    }

    #[test]
    fn entries_that_were_admitted_are_no_jump_and_others_are() {
        let mut others = Others::default();
        assert!(!others.have_jumped(look(0, 5000, 0)), "there is nothing to compare");
        assert!(!others.have_jumped(look(1, 9000, 3500)));
        assert!(others.have_jumped(look(2, 14_000, 4000)));
    }

    #[test]
    fn a_commit_that_goes_on_is_noticed_again_and_not_each_second() {
        let mut others = Others::default();
        let jumped = (0..12).map(|second| others.have_jumped(look(second, second * 2000, 0)));
        let at: Vec<_> =
            (0..12).zip(jumped).filter(|(_, jumped)| *jumped).map(|(at, _)| at).collect();
        assert_eq!(at, [1, 6, 11]);
    }

    #[test]
    fn in_a_large_table_a_thousand_are_no_jump() {
        let mut others = Others::default();
        let large = |entries| Look { max: 1 << 20, ..look(0, entries, 0) };
        assert!(!others.have_jumped(large(0)) && !others.have_jumped(large(4000)));
        assert!(others.have_jumped(large(8200)));
    }
}
