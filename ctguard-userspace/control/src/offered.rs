//! The demand of each source: rates, averaged over some seconds, of the data path's counters.

use std::time::Duration;

use ctguard_datapath::sources;
use ctguard_layout::{CLASSES, Class, OfferedSlot, SourceCells, SourceLine, Tier};

use super::OfferedLoad;
use crate::tuning::TUNING;
use ctguard_units::real;

/// What one slot of offered loads counts for sources that are not known.
const UNKNOWN: [(Tier, Class); UNKNOWN_COUNTS] = [
    (Tier::Strangers, Class::Tcp),
    (Tier::Strangers, Class::Udp),
    (Tier::Strangers, Class::Other),
    (Tier::Answered, Class::Tcp),
    (Tier::Retried, Class::Udp),
];

const UNKNOWN_COUNTS: usize = 5;

/// The counters of one slot, as in [`UNKNOWN`].
type UnknownCounts = [u32; UNKNOWN_COUNTS];

/// Tier and counters of one known source, by class; `None` for a free slot.
type KnownCounts = Option<(Tier, [u32; CLASSES])>;

/// Rates of all slots.
#[derive(Debug, Default)]
pub struct OfferedRates {
    observed: Option<Duration>,
    /// Seconds that the sums stand for.
    weight: f64,
    unknown: Vec<[Sum; UNKNOWN_COUNTS]>,
    known: Vec<[Sum; CLASSES]>,
}

/// A sum of flows that decays. There are a hundred thousand of them.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    counted: u32,
    flows: f32,
}

impl OfferedRates {
    /// The demand of each source; nothing the first time.
    pub fn look(
        &mut self,
        now: Duration,
        offered: &[OfferedSlot],
        lines: &[SourceLine],
        cells: &[SourceCells],
    ) -> Vec<OfferedLoad> {
        let unknown = offered.iter().map(|slot| {
            let OfferedSlot { offered: [tcp, udp, other, _], answered, retried, .. } = slot;
            // The `map` of arrays is not inlined, and there are a hundred thousand slots.
            [tcp.load(), udp.load(), other.load(), answered.load(), retried.load()]
        });
        let known = known_tiers(lines).zip(cells).map(|(tier, SourceCells { offered, .. })| {
            let [tcp, udp, other, _] = offered;
            Some((tier?, [tcp.load(), udp.load(), other.load()]))
        });
        self.observe(now, unknown, known)
    }

    fn observe(
        &mut self,
        now: Duration,
        unknown: impl ExactSizeIterator<Item = UnknownCounts>,
        known: impl ExactSizeIterator<Item = KnownCounts>,
    ) -> Vec<OfferedLoad> {
        let elapsed = match self.observed.replace(now) {
            Some(before) => now.saturating_sub(before).as_secs_f64(),
            None => 0.0,
        };
        let fade = if elapsed > 0.0 {
            (-elapsed / TUNING.offered_memory.as_secs_f64()).exp()
        } else {
            0.0
        };
        self.weight = self.weight * fade + elapsed;
        self.unknown.resize(unknown.len(), [Sum::default(); UNKNOWN_COUNTS]);
        self.known.resize(known.len(), [Sum::default(); CLASSES]);

        let per_second = if self.weight > 0.0 { 1.0 / self.weight } else { 0.0 };
        let mut loads = Vec::new();
        for (sums, counts) in self.unknown.iter_mut().zip(unknown) {
            for ((sum, counted), (tier, class)) in sums.iter_mut().zip(counts).zip(UNKNOWN) {
                let flows = sum.add(counted, fade);
                let is_seen_once = flows <= f64::from(OfferedSlot::SAMPLE);
                let flows_per_second = flows * per_second;
                push(&mut loads, OfferedLoad { class, tier, flows_per_second, is_seen_once });
            }
        }
        for (sums, counts) in self.known.iter_mut().zip(known) {
            let Some((tier, counts)) = counts else {
                *sums = [Sum::default(); CLASSES];
                continue;
            };
            for ((sum, counted), class) in sums.iter_mut().zip(counts).zip(Class::ALL) {
                let flows_per_second = sum.add(counted, fade) * per_second;
                let is_seen_once = false;
                push(&mut loads, OfferedLoad { class, tier, flows_per_second, is_seen_once });
            }
        }
        loads
    }
}

impl Sum {
    /// Adds what was counted since the last time; a `fade` of 0 starts over.
    fn add(&mut self, counted: u32, fade: f64) -> f64 {
        if counted == self.counted && self.flows <= 0.0 {
            return 0.0;
        }
        let more = counted.wrapping_sub(std::mem::replace(&mut self.counted, counted));
        // The counter of a slot with a new owner starts at 0.
        let more = if more > u32::MAX / 2 { 0 } else { more };
        let more = if fade > 0.0 { real(more.into()) } else { 0.0 };
        let flows = f64::from(self.flows) * fade + more;
        #[expect(clippy::cast_possible_truncation, reason = "rounded to a part in 10^7")]
        let kept = flows as f32;
        self.flows = kept;
        flows
    }
}

/// The tier of each known source, by slot; `None` for a free slot.
pub fn known_tiers(lines: &[SourceLine]) -> impl ExactSizeIterator<Item = Option<Tier>> + '_ {
    (0..lines.len() * SourceLine::SLOTS).map(|slot| {
        let line = lines.get(slot / SourceLine::SLOTS)?;
        sources::tier_of(line.slots[slot % SourceLine::SLOTS].load())
    })
}

fn push(loads: &mut Vec<OfferedLoad>, load: OfferedLoad) {
    if load.flows_per_second > TUNING.offered_least {
        loads.push(load);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_finds_nothing_and_the_second_the_rate() {
        let mut rates = OfferedRates::default();
        assert!(observe(&mut rates, 0, 5000, None).is_empty());
        let loads = observe(&mut rates, 100, 5160, None);
        assert_eq!(loads.len(), 1);
        assert!((loads[0].flows_per_second - 1600.0).abs() < 1e-6, "{loads:?}");
        assert_eq!((loads[0].tier, loads[0].class), (Tier::Strangers, Class::Tcp));
        assert!(!loads[0].is_seen_once);
    }

    #[test]
    fn a_source_of_one_sample_is_seen_once() {
        let mut rates = OfferedRates::default();
        observe(&mut rates, 0, 0, None);
        assert!(observe(&mut rates, 20, OfferedSlot::SAMPLE, None)[0].is_seen_once);
        assert!(!observe(&mut rates, 40, 2 * OfferedSlot::SAMPLE, None)[0].is_seen_once);
    }

    #[test]
    fn a_rate_is_averaged_over_some_seconds() {
        let mut rates = OfferedRates::default();
        let mut loads = Vec::new();
        for look in 0..100 {
            // A sample of sixteen flows each second.
            loads = observe(&mut rates, look * 100, u32::try_from(look / 10 * 16).unwrap(), None);
        }
        let rate = loads[0].flows_per_second;
        assert!((12.0..20.0).contains(&rate), "{rate}");
    }

    #[test]
    fn a_known_source_has_a_rate_in_its_own_tier() {
        let mut rates = OfferedRates::default();
        observe(&mut rates, 0, 0, Some((Tier::Regulars, [0, 7, 0])));
        let loads = observe(&mut rates, 1000, 0, Some((Tier::Regulars, [0, 9, 0])));
        assert_eq!((loads[0].tier, loads[0].class), (Tier::Regulars, Class::Udp));
        assert!((loads[0].flows_per_second - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_slot_with_another_owner_begins_anew() {
        let mut rates = OfferedRates::default();
        observe(&mut rates, 0, 0, Some((Tier::Proven, [900, 0, 0])));
        assert!(observe(&mut rates, 100, 0, Some((Tier::Proven, [0, 0, 0]))).is_empty());
    }

    fn observe(
        rates: &mut OfferedRates,
        milliseconds: u64,
        tcp: u32,
        known: KnownCounts,
    ) -> Vec<OfferedLoad> {
        let now = Duration::from_millis(milliseconds);
        let unknown = [[tcp, 0, 0, 0, 0]];
        rates.observe(now, unknown.into_iter(), [known].into_iter())
    }
}
