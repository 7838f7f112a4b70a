//! The counters, summed over processors.

use ctguard_layout::{COUNTERS, Class, Counter, Counters};

/// What all processors counted together.
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

    /// New flows that were refused, of all classes, by reason.
    pub fn refused_by_reason(&self) -> [(&'static str, u64); 7] {
        let of = |counter: fn(Class) -> Counter| {
            Class::ALL.into_iter().map(|class| self.get(counter(class))).sum()
        };
        [
            ("source", of(Counter::RefusedSource)),
            ("prefix", of(Counter::RefusedPrefix)),
            ("service", of(Counter::RefusedService)),
            ("grant", of(Counter::RefusedGrant)),
            ("fallback", of(Counter::RefusedFallback)),
            ("challenge", of(Counter::RefusedChallenge)),
            ("deny", of(Counter::RefusedDeny)),
        ]
    }

    /// New flows that were refused, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.refused_by_reason().iter().map(|(_, number)| number).sum()
    }

    /// How often it happened.
    pub fn get(&self, counter: Counter) -> u64 {
        usize::try_from(counter.index())
            .ok()
            .and_then(|index| self.0.get(index))
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use ctguard_datapath::recent;
    use ctguard_layout::{Class, SCRATCH_WORDS};

    use super::*;

    #[test]
    fn processors_are_summed() {
        let processor = Counters {
            values: [3; COUNTERS],
            recent: [0; recent::SLOTS],
            scratch: [0; SCRATCH_WORDS],
        };
        let totals = Totals::sum([&processor; 2].into_iter());
        assert_eq!(totals.get(Counter::Seen(Class::Tcp)), 6);
        assert_eq!(totals.refused(), 6 * 7 * 3, "seven reasons of three classes");
    }
}
