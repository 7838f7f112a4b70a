//! Sources that have been above their part for long, for the operator to deny them for a while (pf's
//! overload tables).
//!
//! Only entries that prove the source's address count, so nobody can have another one denied.

use std::{collections::HashMap, time::Duration};

use super::{reclaim::Marks, sources::SourceScope};

/// Since when sources have been above their part, look after look.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    since: HashMap<SourceScope, Duration>,
}

impl Overload {
    /// The sources that have been above their part for `after`. Each is told again if it still is
    /// when it has been denied for `lasts`, and for `after` more. `None`: nobody is ever told.
    pub fn look(
        &mut self,
        marks: &Marks,
        now: Duration,
        after: Option<Duration>,
        lasts: Option<Duration>,
    ) -> Vec<SourceScope> {
        let Some(after) = after else {
            self.since.clear();
            return Vec::new();
        };
        let is_above = |source: &SourceScope| {
            marks.get(source).is_some_and(|excess| excess.proving > 0) && !is_a_whole_link(*source)
        };
        self.since.retain(|source, _| is_above(source));
        for source in marks.keys().filter(|source| is_above(source)) {
            self.since.entry(*source).or_insert(now);
        }
        let again = now.saturating_add(lasts.unwrap_or(Duration::MAX));
        let due = self.since.iter_mut().filter(|(_, since)| now >= since.saturating_add(after));
        let mut told: Vec<_> = due
            .map(|(&source, since)| {
                *since = again;
                source
            })
            .collect();
        told.sort_unstable();
        told
    }
}

/// Whether it is `fe80::/64`, which is no single source: all hosts of a link have addresses in it.
const fn is_a_whole_link(source: SourceScope) -> bool {
    matches!(source, SourceScope::V6(prefix) if prefix >> 54 == 0xfe80 >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holdings::Excess;

    const SOURCE: SourceScope = SourceScope::V4(7);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn above(proving: u32, other: u32) -> Marks {
        Marks::from([(SOURCE, Excess { proving, other })])
    }

    fn look(overload: &mut Overload, marks: &Marks, at: u64) -> Vec<SourceScope> {
        overload.look(marks, seconds(at), Some(seconds(30)), Some(seconds(600)))
    }

    #[test]
    fn a_source_is_told_after_the_time_above_its_part_and_again_after_it_was_denied() {
        let mut overload = Overload::default();
        assert_eq!(look(&mut overload, &above(1, 0), 100), []);
        assert_eq!(look(&mut overload, &above(1, 0), 129), []);
        assert_eq!(look(&mut overload, &above(1, 0), 131), [SOURCE]);
        assert_eq!(look(&mut overload, &above(1, 0), 700), []);
        assert_eq!(look(&mut overload, &above(1, 0), 762), [SOURCE]);
    }

    #[test]
    fn a_source_that_was_within_its_part_at_one_look_begins_anew() {
        let mut overload = Overload::default();
        look(&mut overload, &above(1, 0), 100);
        look(&mut overload, &Marks::new(), 120);
        assert_eq!(look(&mut overload, &above(1, 0), 131), []);
    }

    /// Fails when spoofed packets get the source denied that they name.
    #[test]
    fn entries_that_prove_nothing_have_nobody_denied() {
        let mut overload = Overload::default();
        look(&mut overload, &above(0, 9), 100);
        assert_eq!(look(&mut overload, &above(0, 9), 1000), []);
    }

    /// Fails when one host has its router and all other neighbours denied.
    #[test]
    fn a_whole_link_is_never_told() {
        let told = |source: &str| {
            let source = source.parse().unwrap();
            let marks = Marks::from([(source, Excess { proving: 1, other: 0 })]);
            let mut overload = Overload::default();
            look(&mut overload, &marks, 100);
            look(&mut overload, &marks, 1000) == [source]
        };
        assert!(!told("fe80::/64"));
        assert!(told("2001:db8::/64") && told("fec0::/64"));
    }

    #[test]
    fn nobody_is_told_while_it_is_off() {
        let mut overload = Overload::default();
        look(&mut overload, &above(1, 0), 100);
        assert_eq!(overload.look(&above(1, 0), seconds(1000), None, None), []);
        assert_eq!(look(&mut overload, &above(1, 0), 1001), []);
    }
}
