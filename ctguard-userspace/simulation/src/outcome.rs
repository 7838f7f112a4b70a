//! What came of the load: success and refusals by group, fill of the table.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use ctguard_datapath::{admission::Refusal, guard::Outcome};
use serde::Serialize;

use super::quantity::float;

/// Points of a series.
const POINTS: u32 = 400;
/// They are no nearer than this.
const SHORTEST_STEP: Duration = Duration::from_millis(100);

/// Flows of a source on average below which chance alone makes sources differ too much to speak of
/// fairness: 1 / (1 + 1/20) is 0.95.
const FEWEST_FOR_FAIRNESS: f64 = 20.0;

/// Why a packet did not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its source's ceiling or share.
    Source,
    /// The limit of its prefix or its service.
    Scope,
    /// Strangers of its class are challenged.
    Challenge,
    Grant,
    Fallback,
    /// The deny list, or what no flow begins with.
    Denied,
    /// The kernel had no room.
    TableFull,
}

/// Packets refused, by reason.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Refused {
    pub(super) source: u64,
    /// The limit of a prefix or a service.
    pub(super) scope: u64,
    /// Challenged, by an answer or by silence.
    pub(super) challenge: u64,
    pub(super) grant: u64,
    pub(super) fallback: u64,
    pub(super) denied: u64,
    pub(super) table_full: u64,
}

/// What came of flows, by the time at which they began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) flows: u64,
    pub(super) at_once: u64,
    pub(super) after_retry: u64,
    pub(super) failed: u64,
    /// Packets of any try.
    pub(super) refused: Refused,
}

/// One group's.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Of the time that is measured.
    pub(super) measured: Counts,
    /// Of all time, step by step.
    pub(super) series: Vec<Counts>,
    /// Milliseconds that flows waited which did not succeed at once.
    delays: BTreeMap<u64, u64>,
    /// Flows that succeeded, by source; none where sources do not come again.
    by_source: Vec<u32>,
}

/// The table at one look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FillPoint {
    pub(super) entries: u64,
    /// The most since the last look.
    pub(super) peak: u64,
}

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) step: Duration,
    pub(super) measured: Range<Duration>,
    pub(super) tallies: Vec<Tally>,
    pub(super) fill: Vec<FillPoint>,
    peak: u64,
}

impl Reason {
    /// Why an outcome did not pass.
    pub(super) const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Refused(_, Refusal::Source) => Self::Source,
            Outcome::Refused(_, Refusal::Prefix | Refusal::Service) => Self::Scope,
            Outcome::Refused(_, Refusal::Challenge) | Outcome::Challenged(..) => Self::Challenge,
            Outcome::Refused(_, Refusal::Grant) => Self::Grant,
            Outcome::Refused(_, Refusal::Fallback) => Self::Fallback,
            Outcome::Denied(_)
            | Outcome::Exempt
            | Outcome::NotOurs
            | Outcome::UnknownInterface
            | Outcome::Known
            | Outcome::Repeated
            | Outcome::MakesNoEntry
            | Outcome::LaterFragment
            | Outcome::TinyFragment
            | Outcome::Malformed(_)
            | Outcome::ChallengeAnswered
            | Outcome::Admitted(..) => Self::Denied,
        }
    }
}

impl Refused {
    pub(super) const fn total(&self) -> u64 {
        let of_limits = self.source + self.scope + self.challenge;
        of_limits + self.grant + self.fallback + self.denied + self.table_full
    }

    const fn add(&mut self, reason: Reason, count: u64) {
        match reason {
            Reason::Source => self.source += count,
            Reason::Scope => self.scope += count,
            Reason::Challenge => self.challenge += count,
            Reason::Grant => self.grant += count,
            Reason::Fallback => self.fallback += count,
            Reason::Denied => self.denied += count,
            Reason::TableFull => self.table_full += count,
        }
    }
}

impl Counts {
    pub(super) const fn succeeded(&self) -> u64 {
        self.at_once + self.after_retry
    }
}

impl Record {
    /// Of groups with so many sources each, in a load that lasts so long.
    pub(super) fn new(sources: &[u32], duration: Duration, measured: Range<Duration>) -> Self {
        let step = (duration / POINTS).max(SHORTEST_STEP);
        let tally = |sources: &u32| Tally {
            measured: Counts::default(),
            series: Vec::new(),
            delays: BTreeMap::new(),
            by_source: vec![0; usize::try_from(*sources).unwrap_or(0)],
        };
        Self {
            step,
            measured,
            tallies: sources.iter().map(tally).collect(),
            fill: Vec::new(),
            peak: 0,
        }
    }

    pub(super) fn flows_began(&mut self, group: usize, at: Duration, count: u64) {
        self.count(group, at, |counts| counts.flows += count);
    }

    /// Packets at `at` of a flow that `began`.
    pub(super) fn refused(&mut self, group: usize, at: Duration, reason: Reason, count: u64) {
        self.count(group, at, |counts| counts.refused.add(reason, count));
    }

    /// A flow that began then has its entry, after waiting for `delay`.
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

    /// Looks of the time that is measured.
    pub(super) fn measured_fill(&self) -> impl Iterator<Item = FillPoint> {
        let moments = (0_u32..).map(|index| self.step * index);
        let looks = self.fill.iter().zip(moments);
        looks.filter(|(_, at)| self.measured.contains(at)).map(|(point, _)| *point)
    }

    fn count(&mut self, group: usize, at: Duration, add: impl Fn(&mut Counts)) {
        let Some(tally) = self.tallies.get_mut(group) else { return };
        if self.measured.contains(&at) {
            add(&mut tally.measured);
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
    /// Whether its sources come again and are told apart.
    pub(super) const fn tells_sources(&self) -> bool {
        !self.by_source.is_empty()
    }

    /// Milliseconds that all but this part of the flows that succeeded waited no longer than.
    pub(super) fn delay_quantile(&self, quantile: f64) -> Option<u64> {
        let succeeded = self.measured.succeeded();
        let mut longer = float(succeeded) * (1.0 - quantile);
        if succeeded == 0 {
            return None;
        }
        for (delay, count) in self.delays.iter().rev() {
            longer -= float(*count);
            if longer < 0.0 {
                return Some(*delay);
            }
        }
        Some(0)
    }

    /// Jain's index of the flows that sources got through (Jain, Chiu and Hawe, "A Quantitative
    /// Measure of Fairness", 1984): 1 where all got the same, 1/n where one got all.
    pub(super) fn fairness(&self) -> Option<f64> {
        let count = float(u64::try_from(self.by_source.len()).ok()?);
        let flows = || self.by_source.iter().map(|flows| f64::from(*flows));
        let (sum, squares) =
            (flows().sum::<f64>(), flows().map(|flows| flows * flows).sum::<f64>());
        (count > 1.0 && sum >= count * FEWEST_FOR_FAIRNESS).then(|| sum * sum / (count * squares))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(record.tallies[0].series.iter().map(|counts| counts.flows).sum::<u64>(), 10);
    }

    fn record(sources: u32) -> Record {
        let second = Duration::from_secs;
        Record::new(&[sources], second(10), Duration::ZERO..second(5))
    }
}
