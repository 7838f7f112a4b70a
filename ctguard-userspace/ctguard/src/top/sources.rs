//! How fast each source asks for new flows. The data path samples one flow in 16, so a rate is an
//! average over some seconds.

use std::{collections::HashMap, time::Duration};

use ctguard_control::sources::SourceScope;
use ctguard_layout::OfferedSlot;
use ctguard_units::real;

use super::reading::Asked;

/// A sample of this age counts for a third of a new one.
const MEMORY: Duration = Duration::from_secs(5);
/// Packets may name any source, but spoofed ones seldom name the same one again.
const FEWEST_SAMPLES: u32 = 3;
/// Known sources that are followed.
const MOST_KNOWN: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct SourceRates {
    looked: Option<Duration>,
    /// Seconds between the last two looks.
    elapsed: f64,
    slots: Vec<Option<(SourceScope, Followed)>>,
    known: HashMap<SourceScope, Followed>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Followed {
    counted: u32,
    samples: u32,
    /// A sum that decays, and the seconds that it stands for.
    flows: f64,
    weight: f64,
}

impl SourceRates {
    /// The sources that ask most, with their rates, the fastest first.
    pub(super) fn look(
        &mut self,
        now: Duration,
        asked: &[Asked],
        most: usize,
    ) -> Vec<(SourceScope, f64)> {
        let before = self.looked.replace(now);
        let elapsed = before.map_or(0.0, |before| now.saturating_sub(before).as_secs_f64());
        self.elapsed = elapsed;
        for &Asked { slot, source, counted } in asked {
            if self.slots.len() <= slot {
                self.slots.resize(slot + 1, None);
            }
            match &mut self.slots[slot] {
                Some((before, followed)) if *before == source => followed.add(counted, elapsed),
                other => *other = Some((source, Followed { counted, ..Followed::default() })),
            }
        }
        let rates = self.slots.iter().flatten();
        let mut rates: Vec<_> = rates
            .filter(|(_, followed)| followed.samples >= FEWEST_SAMPLES)
            .map(|(source, followed)| (*source, followed.rate()))
            .filter(|(_, rate)| *rate > 0.0)
            .collect();
        rates.sort_by(|one, other| other.1.total_cmp(&one.1));
        rates.truncate(most);
        rates
    }

    /// The rate of a known source, to be asked once after each `look`.
    pub(super) fn of_known(&mut self, source: SourceScope, counted: u32) -> f64 {
        if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&source) {
            self.known.clear();
        }
        let first = Followed { counted, ..Followed::default() };
        let followed = self.known.entry(source).or_insert(first);
        followed.add(counted, self.elapsed);
        followed.rate()
    }
}

impl Followed {
    fn add(&mut self, counted: u32, elapsed: f64) {
        let more = counted.wrapping_sub(std::mem::replace(&mut self.counted, counted));
        // The counter of a slot with a new owner starts at 0.
        let more = if more > u32::MAX / 2 { 0 } else { more };
        let fade = (-elapsed / MEMORY.as_secs_f64()).exp();
        self.samples = self.samples.saturating_add(more / OfferedSlot::SAMPLE);
        self.flows = self.flows * fade + real(more.into());
        self.weight = self.weight * fade + elapsed;
    }

    /// Of what no sample has met for long, nothing is left.
    fn rate(&self) -> f64 {
        let rate = if self.weight > 0.0 { self.flows / self.weight } else { 0.0 };
        if rate < 0.1 { 0.0 } else { rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: SourceScope = SourceScope::V4(0xc633_6407);

    #[test]
    fn a_source_that_asks_again_and_again_has_its_rate_and_a_spoofed_one_has_none() {
        let mut rates = SourceRates::default();
        let mut found = Vec::new();
        for second in 0..20_u32 {
            let spoofed = SourceScope::V4(second);
            let asked = [
                Asked { slot: 3, source: EDGE, counted: 160 * second },
                Asked { slot: 9, source: spoofed, counted: 16 * second },
            ];
            found = rates.look(Duration::from_secs(second.into()), &asked, 5);
        }
        let [(source, rate)] = found[..] else { panic!("{found:?}") };
        assert_eq!(source, EDGE);
        assert!((rate - 160.0).abs() < 1.0, "{rate}");
    }

    #[test]
    fn the_rate_of_a_source_that_fell_silent_fades() {
        let mut rates = SourceRates::default();
        let mut look = |second: u64, counted| {
            let asked = [Asked { slot: 0, source: EDGE, counted }];
            rates.look(Duration::from_secs(second), &asked, 5).first().map(|found| found.1)
        };
        look(0, 0);
        assert!(look(1, 1600).is_some_and(|rate| rate > 1500.0));
        assert!(look(11, 1600).is_some_and(|rate| rate < 300.0));
        assert_eq!(look(100, 1600), None);
    }

    #[test]
    fn no_more_known_sources_are_followed_than_fit() {
        let mut rates = SourceRates::default();
        for number in 0..3 * u32::try_from(MOST_KNOWN).unwrap() {
            rates.of_known(SourceScope::V4(number), 0);
        }
        assert!(rates.known.len() <= MOST_KNOWN);
    }
}
