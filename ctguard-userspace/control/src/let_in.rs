//! How many new flows the guard let into the table.

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
    not_admitted: u64,
    drops_nothing: bool,
}

impl LetIn {
    /// The flows of all time, given those `admitted` and all others that were seen.
    ///
    /// What came between two counts passed if nothing is dropped at either of them. The few flows too
    /// many that this makes where a dry run begins or ends hide some of what others open, for the
    /// window of [`crate::Reserve`]; too few would keep room for nobody for a minute.
    pub fn count(&mut self, admitted: u64, not_admitted: u64, drops_nothing: bool) -> u64 {
        let now = Count { not_admitted, drops_nothing };
        if let Some(last) = self.last.replace(now)
            && (last.drops_nothing || drops_nothing)
        {
            self.passed += not_admitted.saturating_sub(last.not_admitted);
        }
        admitted + self.passed
    }

    /// Whether the last count still holds if nothing has been admitted since.
    pub fn is_settled(&self, drops_nothing: bool) -> bool {
        !drops_nothing && self.last.is_some_and(|last| !last.drops_nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_was_not_let_in_and_what_a_dry_run_passed_was() {
        let mut let_in = LetIn::default();
        assert_eq!(let_in.count(10, 500, false), 10);
        assert_eq!(let_in.count(20, 900, false), 20);
        assert_eq!(let_in.count(20, 1000, true), 120, "the dry run began in between");
        assert_eq!(let_in.count(30, 1700, true), 830);
        assert_eq!(let_in.count(30, 1800, false), 930, "it ended in between");
        assert_eq!(let_in.count(40, 9999, false), 940);
    }

    #[test]
    fn a_count_holds_without_admissions_only_while_flows_are_dropped() {
        let mut let_in = LetIn::default();
        assert!(!let_in.is_settled(false));
        let_in.count(0, 0, false);
        assert!(let_in.is_settled(false) && !let_in.is_settled(true));
        let_in.count(0, 5, true);
        assert!(!let_in.is_settled(false), "what passed before the end is not counted yet");
    }
}
