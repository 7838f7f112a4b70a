//! When service is back: from the flows and the fill after some moment.

use serde::{Deserialize, Serialize};

use crate::{
    legit::{Flow, Outcome},
    report::{Legitimate, ratio},
    table::FillPoint,
};

/// Service is back when of the flows that start within so many seconds …
const WINDOW: f64 = 0.5;
/// … this share succeeds at once.
const SERVED: f64 = 0.9;
/// A fill is at the target within this share of the table.
const AT_TARGET: f64 = 0.02;
/// Windows begin so many seconds apart.
const STEP: f64 = 0.1;

/// What came after a guard was started in the midst of a flood; seconds count from the moment at
/// which its process was started.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// When it was started, from the run's begin.
    pub started_seconds: f64,
    /// How full the table was.
    #[serde(default)]
    pub fill_ratio_before: Option<f64>,
    /// Until it said that it guards.
    pub ready_seconds: f64,
    /// Until legitimate flows succeeded at once; null where they never did.
    pub service_seconds: Option<f64>,
    /// Until the table was no fuller than the target; null where it stayed so.
    pub fill_seconds: Option<f64>,
}

/// What came while the guard's daemon was dead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outage {
    /// Seconds at which it was killed and started again, from the run's begin.
    pub seconds: (f64, f64),
    /// New flows of legitimate clients meanwhile.
    pub legitimate: Legitimate,
}

impl Outage {
    pub(crate) fn of(flows: &[Flow], seconds: (f64, f64)) -> Self {
        Self { seconds, legitimate: Legitimate::sum_up(flows, seconds) }
    }
}

impl Recovery {
    /// What the fill alone tells of a start at this second.
    pub(crate) fn of_fill(series: &[FillPoint], started: f64, table: (u64, f64)) -> Self {
        Self {
            started_seconds: started,
            fill_ratio_before: fill_before(series, started, table.0),
            ready_seconds: 0.0,
            service_seconds: None,
            fill_seconds: fill_back(series, started, table),
        }
    }
}

/// Seconds from `from` until the first window whose flows succeed at once.
#[must_use]
pub fn service_back(flows: &[Flow], (from, until): (f64, f64)) -> Option<f64> {
    let starts: Vec<(f64, bool)> = flows
        .iter()
        .map(|flow| (flow.started.as_secs_f64(), flow.outcome == Outcome::AtOnce))
        .collect();
    let windows = std::iter::successors(Some(from), |window| Some(window + STEP));
    let mut windows = windows.take_while(|window| window + WINDOW <= until);
    let served = |window: &f64| {
        let within = starts.iter().filter(|(at, _)| (*window..window + WINDOW).contains(at));
        let (tried, at_once) = within
            .fold((0, 0), |(tried, at_once), (_, done)| (tried + 1, at_once + u64::from(*done)));
        tried > 0 && ratio(at_once, tried) >= SERVED
    };
    windows.find(served).map(|window| window - from)
}

/// How full the table was just before.
fn fill_before(series: &[FillPoint], moment: f64, table_max: u64) -> Option<f64> {
    let last = series.iter().rev().find(|point| point.seconds < moment);
    last.map(|point| ratio(point.count, table_max))
}

/// Seconds from `from` until the table is at its target.
fn fill_back(
    series: &[FillPoint],
    from: f64,
    (table_max, target_ratio): (u64, f64),
) -> Option<f64> {
    let mut later = series.iter().filter(|point| point.seconds >= from);
    let at_target = |point: &&FillPoint| ratio(point.count, table_max) <= target_ratio + AT_TARGET;
    later.find(at_target).map(|point| point.seconds - from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::legit::{FlowKind, Group};

    #[test]
    fn service_is_back_with_the_first_window_that_succeeds() {
        let flows: Vec<Flow> = (0..100)
            .map(|turn| Flow {
                kind: FlowKind::TcpInward,
                group: Group::Known,
                started: Duration::from_millis(50 * turn),
                connect: None,
                outcome: if turn < 40 { Outcome::Eventually } else { Outcome::AtOnce },
            })
            .collect();
        let back = service_back(&flows, (1.0, 5.0)).expect("it comes back");
        assert!((0.9..=1.01).contains(&back), "{back}");
        assert_eq!(service_back(&flows, (0.0, 1.5)), None);
    }

    #[test]
    fn a_table_that_stays_full_never_comes_back() {
        let series = [(0.0, 100), (1.0, 100), (2.0, 86), (3.0, 80)];
        let series = series.map(|(seconds, count)| FillPoint { seconds, count });
        assert_eq!(fill_back(&series, 0.5, (100, 0.85)), Some(1.5));
        assert_eq!(fill_back(&series, 0.5, (100, 0.5)), None);
    }
}
