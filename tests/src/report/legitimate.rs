//! How legitimate new flows fared.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{GroupOutcome, ratio};
use crate::legit::{Flow, FlowKind, Outcome};

/// How legitimate new flows fared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Legitimate {
    /// Flows that started while the flood lasted (in a run without one: in the same time).
    pub during_flood: Success,
    /// The same by direction and protocol.
    pub by_kind: BTreeMap<FlowKind, Success>,
    /// The same by group of clients.
    #[serde(default)]
    pub by_group: Vec<GroupOutcome>,
    /// All flows of the run.
    pub whole_run: Success,
    /// Time to connect of the flows of `during_flood` that did.
    pub connect_milliseconds: Option<ConnectTimes>,
    /// The same of flows from outside before the flood.
    #[serde(default)]
    pub connect_before_milliseconds: Option<ConnectTimes>,
    /// Success by second of start, the whole run long.
    pub over_time: Vec<SuccessPoint>,
}

/// Flows, and how many succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// Flows tried.
    pub attempted: u64,
    /// Done without waiting for a retransmission.
    pub at_once: u64,
    /// Done within four seconds, those done at once included.
    pub eventually: u64,
}

/// Success of the flows that started in one second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuccessPoint {
    /// The second, from the run's begin.
    pub seconds: u32,
    /// Its flows.
    pub success: Success,
}

/// Milliseconds that TCP took to connect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectTimes {
    /// Half of the connections took no longer.
    pub median: f64,
    /// 99 of 100 connections took no longer.
    pub p99: f64,
}

impl Success {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            attempted: self.attempted + other.attempted,
            at_once: self.at_once + other.at_once,
            eventually: self.eventually + other.eventually,
        }
    }

    /// The share done at once, of 1; nothing tried counts as success.
    #[must_use]
    pub fn at_once_ratio(self) -> f64 {
        ratio(self.at_once, self.attempted)
    }

    /// The share done within four seconds, of 1.
    #[must_use]
    pub fn eventually_ratio(self) -> f64 {
        ratio(self.eventually, self.attempted)
    }

    pub(super) fn count(&mut self, outcome: Outcome) {
        self.attempted += 1;
        self.at_once += u64::from(outcome == Outcome::AtOnce);
        self.eventually += u64::from(outcome != Outcome::Failed);
    }
}

impl Legitimate {
    /// Sums flows up; `during` says which seconds the flood takes.
    #[must_use]
    pub fn sum_up(flows: &[Flow], during: (f64, f64)) -> Self {
        let mut sum = Self::default();
        let mut seconds: BTreeMap<u32, Success> = BTreeMap::new();
        let (mut connects, mut before) = (Vec::new(), Vec::new());
        let within = |flow: &&Flow| (during.0..during.1).contains(&flow.started.as_secs_f64());
        for flow in flows {
            let second = u32::try_from(flow.started.as_secs()).unwrap_or(u32::MAX);
            sum.whole_run.count(flow.outcome);
            seconds.entry(second).or_default().count(flow.outcome);
            if within(&flow) {
                sum.during_flood.count(flow.outcome);
                sum.by_kind.entry(flow.kind).or_default().count(flow.outcome);
                connects.extend(flow.connect.map(milliseconds));
            } else if flow.started.as_secs_f64() < during.0 && flow.kind == FlowKind::TcpInward {
                before.extend(flow.connect.map(milliseconds));
            }
        }
        sum.by_group = super::groups::sum_up(flows.iter().filter(within));
        let points = seconds.into_iter();
        sum.over_time =
            points.map(|(seconds, success)| SuccessPoint { seconds, success }).collect();
        sum.connect_milliseconds = ConnectTimes::of(connects);
        sum.connect_before_milliseconds = ConnectTimes::of(before);
        sum
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl ConnectTimes {
    pub(super) fn of(mut milliseconds: Vec<f64>) -> Option<Self> {
        milliseconds.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let rank = (milliseconds.len() * hundredths).div_ceil(100).saturating_sub(1);
            milliseconds.get(rank).copied()
        };
        Some(Self { median: at(50)?, p99: at(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legit::Group;

    fn flow(seconds: u64, outcome: Outcome) -> Flow {
        Flow {
            kind: FlowKind::TcpInward,
            group: Group::Known,
            started: Duration::from_secs(seconds),
            connect: (outcome != Outcome::Failed).then_some(Duration::from_millis(20)),
            outcome,
        }
    }

    #[test]
    fn flows_count_by_the_time_at_which_they_start() {
        let flows =
            [flow(1, Outcome::Failed), flow(2, Outcome::AtOnce), flow(3, Outcome::Eventually)];
        let sum = Legitimate::sum_up(&flows, (2.0, 4.0));
        assert_eq!(sum.during_flood, Success { attempted: 2, at_once: 1, eventually: 2 });
        assert_eq!(sum.whole_run.attempted, 3);
        assert_eq!(sum.over_time.len(), 3);
    }

    #[test]
    fn flows_count_by_group_and_protocol() {
        let sum =
            Legitimate::sum_up(&[flow(2, Outcome::AtOnce), flow(3, Outcome::Failed)], (2.0, 4.0));
        let [outcome] = sum.by_group[..] else { panic!("{:?}", sum.by_group) };
        assert_eq!((outcome.group, outcome.kind), (Group::Known, FlowKind::TcpInward));
        assert_eq!(outcome.success, Success { attempted: 2, at_once: 1, eventually: 1 });
    }

    #[test]
    fn the_percentile_of_few_is_the_greatest() {
        let times = ConnectTimes::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(times, Some(ConnectTimes { median: 2.0, p99: 3.0 }));
        assert_eq!(ConnectTimes::of(vec![]), None);
    }
}
