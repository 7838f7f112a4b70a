//! Counts what became of flows, by group, and how full the table was.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use ctguard_layout::{Action, Outcome, TABLE};
use ctguard_units::real;
use serde::{Serialize, Serializer};

/// Points of a series.
const POINTS: u32 = 400;
const SHORTEST_STEP: Duration = Duration::from_millis(100);

/// With fewer flows per source on average, chance alone makes sources too different: with 20, the
/// index of a fair guard is 1 / (1 + 1/20), or 0.95.
const FEWEST_FOR_FAIRNESS: f64 = 20.0;

/// Why a packet made no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The guard dropped or answered it.
    Guard(Outcome),
    TableFull,
    /// The kernel or the guard had taken its entry away.
    EntryLost,
}

/// Packets refused, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    by_outcome: [u64; TABLE.len()],
    table_full: u64,
    entry_lost: u64,
}

/// What became of flows, by the time at which they began.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) flows: u64,
    pub(super) at_once: u64,
    pub(super) after_retry: u64,
    #[serde(skip)]
    pub(super) failed: u64,
    /// Packets of any try.
    #[serde(rename = "refused_packets", serialize_with = "Refused::serialize_total")]
    pub(super) refused: Refused,
}

/// Counts of one group.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) measured: Counts,
    /// Those of them that began during an attack.
    pub(super) in_attacks: Counts,
    /// Of the whole run, by step.
    pub(super) series: Vec<Counts>,
    /// How many flows waited so many milliseconds, if they waited at all.
    delays: BTreeMap<u64, u64>,
    /// Flows that succeeded, by source; empty where sources do not come again.
    by_source: Vec<u32>,
}

/// A sample of the table.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct FillPoint {
    pub(super) entries: u64,
    /// The most since the last sample.
    #[serde(rename = "peak_entries")]
    pub(super) peak: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) step: Duration,
    pub(super) measured: Range<Duration>,
    attacks: Vec<Range<Duration>>,
    pub(super) tallies: Vec<Tally>,
    pub(super) fill: Vec<FillPoint>,
    peak: u64,
}

impl Reason {
    /// `None` if the outcome passes the packet.
    pub(super) fn of(outcome: Outcome) -> Option<Self> {
        (outcome.row().action != Action::Pass).then_some(Self::Guard(outcome))
    }
}

impl Refused {
    pub(super) fn total(&self) -> u64 {
        self.by_label().iter().map(|(_, count)| count).sum()
    }

    /// By the outcomes' labels. Outcomes with one label, such as the challenges, are added up.
    pub(super) fn by_label(&self) -> Vec<(&'static str, u64)> {
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        let rows = TABLE.iter().zip(self.by_outcome);
        for (row, count) in rows.filter(|(row, _)| Reason::of(row.outcome).is_some()) {
            match counts.iter_mut().find(|(label, _)| *label == row.label) {
                Some((_, sum)) => *sum += count,
                None => counts.push((row.label, count)),
            }
        }
        counts.extend([("table_full", self.table_full), ("entry_lost", self.entry_lost)]);
        counts
    }

    fn serialize_total<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.total().serialize(serializer)
    }

    const fn add(&mut self, reason: Reason, count: u64) {
        match reason {
            Reason::Guard(outcome) => self.by_outcome[outcome as usize] += count,
            Reason::TableFull => self.table_full += count,
            Reason::EntryLost => self.entry_lost += count,
        }
    }
}

impl Serialize for Refused {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.by_label())
    }
}

impl Counts {
    pub(super) const fn succeeded(&self) -> u64 {
        self.at_once + self.after_retry
    }
}

impl Record {
    /// `sources` are those to count one by one, by group.
    pub(super) fn new(
        sources: &[u32],
        duration: Duration,
        measured: Range<Duration>,
        attacks: Vec<Range<Duration>>,
    ) -> Self {
        let step = (duration / POINTS).max(SHORTEST_STEP);
        let tally = |sources: &u32| Tally {
            measured: Counts::default(),
            in_attacks: Counts::default(),
            series: Vec::new(),
            delays: BTreeMap::new(),
            by_source: vec![0; usize::try_from(*sources).unwrap_or(0)],
        };
        Self {
            step,
            measured,
            attacks,
            tallies: sources.iter().map(tally).collect(),
            fill: Vec::new(),
            peak: 0,
        }
    }

    pub(super) fn flows_began(&mut self, group: usize, at: Duration, count: u64) {
        self.count(group, at, |counts| counts.flows += count);
    }

    pub(super) fn refused(&mut self, group: usize, at: Duration, reason: Reason, count: u64) {
        self.count(group, at, |counts| counts.refused.add(reason, count));
    }

    /// A flow has its entry; `delay` is what retransmissions cost.
    pub(super) fn succeeded(
        &mut self,
        group: usize,
        source: u64,
        began: Duration,
        delay: Option<Duration>,
    ) {
        self.count(group, began, |counts| match delay {
            None => counts.at_once += 1,
            Some(_) => counts.after_retry += 1,
        });
        if !self.measured.contains(&began) {
            return;
        }
        let Some(tally) = self.tallies.get_mut(group) else { return };
        if let Some(delay) = delay {
            let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            *tally.delays.entry(milliseconds).or_default() += 1;
        }
        let count = usize::try_from(source).ok().and_then(|at| tally.by_source.get_mut(at));
        if let Some(count) = count {
            *count += 1;
        }
    }

    pub(super) fn failed(&mut self, group: usize, began: Duration, count: u64) {
        self.count(group, began, |counts| counts.failed += count);
    }

    pub(super) fn table_holds(&mut self, entries: u64) {
        self.peak = self.peak.max(entries);
    }

    pub(super) fn look(&mut self, entries: u64) {
        let peak = std::mem::replace(&mut self.peak, entries).max(entries);
        self.fill.push(FillPoint { entries, peak });
    }

    /// Samples of the measured time.
    pub(super) fn measured_fill(&self) -> impl Iterator<Item = FillPoint> {
        let moments = (0_u32..).map(|index| self.step * index);
        let looks = self.fill.iter().zip(moments);
        looks.filter(|(_, at)| self.measured.contains(at)).map(|(point, _)| *point)
    }

    fn count(&mut self, group: usize, at: Duration, add: impl Fn(&mut Counts)) {
        let Some(tally) = self.tallies.get_mut(group) else { return };
        if self.measured.contains(&at) {
            add(&mut tally.measured);
            if self.attacks.iter().any(|attack| attack.contains(&at)) {
                add(&mut tally.in_attacks);
            }
        }
        let step = usize::try_from(at.as_nanos() / self.step.as_nanos()).unwrap_or(0);
        if tally.series.len() <= step {
            tally.series.resize(step + 1, Counts::default());
        }
        if let Some(counts) = tally.series.get_mut(step) {
            add(counts);
        }
    }
}

impl Tally {
    pub(super) const fn counts_sources(&self) -> bool {
        !self.by_source.is_empty()
    }

    /// Quantile of the milliseconds that flows waited which succeeded.
    pub(super) fn delay_quantile(&self, quantile: f64) -> Option<u64> {
        let succeeded = self.measured.succeeded();
        let mut longer = real(succeeded) * (1.0 - quantile);
        if succeeded == 0 {
            return None;
        }
        for (delay, count) in self.delays.iter().rev() {
            longer -= real(*count);
            if longer < 0.0 {
                return Some(*delay);
            }
        }
        Some(0)
    }

    /// Jain's index of successful flows by source (Jain, Chiu and Hawe, "A Quantitative Measure of
    /// Fairness", 1984): 1 if all got the same, 1/n if one got all.
    pub(super) fn fairness(&self) -> Option<f64> {
        let count = real(u64::try_from(self.by_source.len()).ok()?);
        let flows = || self.by_source.iter().map(|flows| f64::from(*flows));
        let sum: f64 = flows().sum();
        let squares: f64 = flows().map(|flows| flows * flows).sum();
        (count > 1.0 && sum >= count * FEWEST_FOR_FAIRNESS).then(|| sum * sum / (count * squares))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Refused {
        pub(crate) fn of(&self, label: &str) -> u64 {
            self.by_label().iter().filter(|(of, _)| *of == label).map(|(_, count)| count).sum()
        }
    }

    #[test]
    fn what_passes_was_refused_for_no_reason() {
        for row in TABLE {
            let reason = Reason::of(row.outcome);
            assert_eq!(reason.is_none(), row.action == Action::Pass, "{row:?}: {reason:?}");
        }
    }

    #[test]
    fn a_refusal_is_counted_under_its_own_label() {
        let mut refused = Refused::default();
        for (outcome, count) in [(Outcome::RefusedPrefix, 1), (Outcome::Denied, 2)] {
            refused.add(Reason::of(outcome).unwrap(), count);
        }
        for outcome in [Outcome::RefusedChallenge, Outcome::ChallengedByAck] {
            refused.add(Reason::of(outcome).unwrap(), 4);
        }
        assert_eq!((refused.of("prefix"), refused.of("deny"), refused.of("challenge")), (1, 2, 8));
        assert_eq!(refused.total(), 11);
    }

    #[test]
    fn one_source_of_four_that_gets_all_is_a_quarter_fair() {
        let mut record = record(4);
        assert_eq!(record.tallies[0].fairness(), None);
        for _ in 0..100 {
            record.succeeded(0, 2, Duration::ZERO, None);
        }
        assert_eq!(record.tallies[0].fairness(), Some(0.25));
    }

    #[test]
    fn sources_that_get_the_same_are_treated_fairly() {
        let mut record = record(4);
        for flow in 0..400 {
            record.succeeded(0, flow % 4, Duration::ZERO, None);
        }
        assert_eq!(record.tallies[0].fairness(), Some(1.0));
    }

    #[test]
    fn delays_are_those_of_all_that_succeeded() {
        let mut record = record(1);
        for flow in 0..100 {
            let delay = (flow < 2).then(|| Duration::from_secs(1 + 2 * flow));
            record.succeeded(0, 0, Duration::ZERO, delay);
        }
        let tally = &record.tallies[0];
        assert_eq!(tally.delay_quantile(0.5), Some(0));
        assert_eq!(tally.delay_quantile(0.99), Some(1000));
        assert_eq!(tally.delay_quantile(1.0), Some(3000));
    }

    #[test]
    fn only_the_measured_time_counts() {
        let mut record = record(1);
        for second in 0..10 {
            record.flows_began(0, Duration::from_secs(second), 1);
        }
        assert_eq!(record.tallies[0].measured.flows, 5);
        assert_eq!(record.tallies[0].in_attacks.flows, 2);
        assert_eq!(record.tallies[0].series.iter().map(|counts| counts.flows).sum::<u64>(), 10);
    }

    fn record(sources: u32) -> Record {
        let second = Duration::from_secs;
        let attack = second(2)..second(4);
        Record::new(&[sources], second(10), Duration::ZERO..second(5), vec![attack])
    }
}
