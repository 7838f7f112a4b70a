//! How many new flows the guard let into the table.

use std::time::Duration;

/// While nothing passes that is not admitted, what is refused is counted this often.
const LASTS: Duration = Duration::from_secs(1);

/// Counts the flows that were admitted and, while nothing is dropped (a dry run or a pause), also
/// those that would not have been: else they would pass for flows that others opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct LetIn {
    last: Option<Count>,
    /// Flows that passed although they were not admitted.
    passed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    at: Duration,
    not_admitted: u64,
    drops_nothing: bool,
}

impl LetIn {
    /// The flows of all time until `now`, given those `admitted` and all others that were seen.
    ///
    /// What came between two counts passed if nothing is dropped at either of them. The few flows too
    /// many that this makes where a dry run begins or ends hide some of what others open, for the
    /// window of [`crate::Reserve`]; too few would keep room for nobody for a minute.
    pub fn count(
        &mut self,
        now: Duration,
        admitted: u64,
        not_admitted: u64,
        drops_nothing: bool,
    ) -> u64 {
        if let Some(last) = self.last.replace(Count { at: now, not_admitted, drops_nothing })
            && (last.drops_nothing || drops_nothing)
        {
            self.passed += not_admitted.saturating_sub(last.not_admitted);
        }
        admitted + self.passed
    }

    /// Whether the last count still holds if nothing has been admitted since. It holds for a second:
    /// what was refused in a longer time must not count as passed when a dry run begins.
    pub fn is_settled(&self, now: Duration, drops_nothing: bool) -> bool {
        let is_fresh = |last: Count| now.saturating_sub(last.at) < LASTS;
        !drops_nothing && self.last.is_some_and(|last| !last.drops_nothing && is_fresh(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Duration = Duration::from_mins(1);

    #[test]
    fn what_was_dropped_was_not_let_in_and_what_a_dry_run_passed_was() {
        let mut let_in = LetIn::default();
        let mut count = |admitted, not_admitted, drops_nothing| {
            let_in.count(BEGIN, admitted, not_admitted, drops_nothing)
        };
        assert_eq!(count(10, 500, false), 10);
        assert_eq!(count(20, 900, false), 20);
        assert_eq!(count(20, 1000, true), 120, "the dry run began in between");
        assert_eq!(count(30, 1700, true), 830);
        assert_eq!(count(30, 1800, false), 930, "it ended in between");
        assert_eq!(count(40, 9999, false), 940);
    }

    #[test]
    fn a_count_holds_without_admissions_only_while_flows_are_dropped() {
        let mut let_in = LetIn::default();
        assert!(!let_in.is_settled(BEGIN, false));
        let_in.count(BEGIN, 0, 0, false);
        assert!(let_in.is_settled(BEGIN, false) && !let_in.is_settled(BEGIN, true));
        let_in.count(BEGIN, 0, 5, true);
        assert!(!let_in.is_settled(BEGIN, false), "what passed before the end is not counted yet");
    }

    /// Fails when a pause after an hour of refusals counts all of them as passed.
    #[test]
    fn of_what_was_refused_before_a_pause_no_more_than_a_second_counts_as_passed() {
        let mut let_in = LetIn::default();
        for tick in 0..36_000 {
            let now = BEGIN + tick * Duration::from_millis(100);
            if !let_in.is_settled(now, false) {
                let_in.count(now, 0, u64::from(tick) * 10, false);
            }
        }
        let now = BEGIN + Duration::from_hours(1);
        let passed = let_in.count(now, 0, 360_000, true);
        assert!(passed <= 100, "{passed}");
    }
}
