//! The counters, summed over processors.

use ctguard_layout::{COUNTERS, Class, Counter, Counters, Group, Outcome, TABLE};

#[derive(Clone, Copy, Debug)]
pub struct Totals([u64; COUNTERS]);

impl Totals {
    pub(super) fn sum<'a>(processors: impl Iterator<Item = &'a Counters>) -> Self {
        let mut totals = [0; COUNTERS];
        for counters in processors {
            for (total, value) in totals.iter_mut().zip(counters.values) {
                *total = value.wrapping_add(*total);
            }
        }
        Self(totals)
    }

    pub fn seen(&self, class: Class) -> u64 {
        Counter::seen(class).map(|counter| self.get(counter)).sum()
    }

    pub fn of_all_classes(&self, outcome: Outcome) -> u64 {
        Class::ALL.into_iter().map(|class| self.get(Counter::Flows(outcome, class))).sum()
    }

    /// Refused new flows of all classes, by reason. Packets of sources on a deny list are not among
    /// them: there, packets of old flows count too.
    pub fn refused_by_reason(&self) -> Vec<(&'static str, u64)> {
        let refusals = TABLE.iter().filter(|row| row.group == Group::Refused && row.is_new_flow);
        refusals.map(|row| (row.label, self.of_all_classes(row.outcome))).collect()
    }

    pub fn refused(&self) -> u64 {
        self.refused_by_reason().iter().map(|(_, number)| number).sum()
    }

    /// New flows that were challenged or refused, or would have been if this were no dry run.
    pub fn not_admitted(&self) -> u64 {
        let challenged = TABLE.iter().filter(|row| row.group == Group::Challenged);
        let challenged = challenged.map(|row| self.of_all_classes(row.outcome));
        challenged.sum::<u64>() + self.refused()
    }

    /// Frames that were judged.
    pub fn frames(&self) -> u64 {
        let of = |outcome| self.of_all_classes(outcome) + self.get(Counter::Packets(outcome));
        TABLE.iter().map(|row| of(row.outcome)).sum()
    }

    /// Frames that passed because a header of theirs was cut short or impossible.
    pub fn unreadable(&self) -> u64 {
        Outcome::MALFORMED.iter().map(|outcome| self.get(Counter::Packets(*outcome))).sum()
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter.index() as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use ctguard_layout::Row;

    use super::*;

    /// Fails when a denied stream of one flow hides, in a dry run, what others open, or is told as
    /// refused flows.
    #[test]
    fn packets_of_denied_sources_are_no_flows() {
        let mut processor = Counters { values: [0; COUNTERS] };
        let mut count = |outcome, packets| {
            let counter = Counter::Flows(outcome, Class::Udp);
            processor.values[counter.index() as usize] = packets;
        };
        count(Outcome::Denied, 100_000);
        count(Outcome::RefusedSource, 7);
        count(Outcome::ChallengedByAck, 5);
        let totals = Totals::sum(std::iter::once(&processor));
        assert_eq!((totals.refused(), totals.not_admitted()), (7, 12));
    }

    #[test]
    fn processors_are_summed() {
        let processor = Counters { values: [3; COUNTERS] };
        let totals = Totals::sum([&processor; 2].into_iter());
        assert_eq!(totals.get(Counter::Wakeups), 6);
        let rows = |is_meant: fn(&Row) -> bool| -> u64 {
            TABLE.iter().filter(|row| is_meant(row)).map(|_| 6).sum()
        };
        let flows = 3 * rows(|row| row.is_new_flow);
        let admitted = totals.of_all_classes(Outcome::Admitted);
        assert_eq!(totals.not_admitted(), flows - admitted);
        assert_eq!(totals.frames(), 6 * 4 * TABLE.len() as u64);
        assert_eq!(totals.unreadable(), 6 * 6);
        assert_eq!(totals.seen(Class::Tcp), rows(|row| row.is_new_flow));
    }
}
