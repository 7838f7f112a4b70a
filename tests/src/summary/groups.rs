//! Groups of clients, a line each: how many flows, how they ended, how long they took.

use std::fmt::Write as _;

use super::{grouped, percent};
use crate::{
    legit::FlowKind,
    report::{ConnectTimes, GroupOutcome, Report, Run},
};

/// All runs, group by group.
#[must_use]
pub fn groups(report: &Report) -> String {
    let mut text = String::new();
    for (name, run) in report.runs() {
        let title = format!("{name}, by group");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{title:<38}{:>7}{:>10}{:>11}{:>8}{:>11}{:>11}{:>11}",
            "flows", "at once", "within 4 s", "failed", "median", "p99", "added",
        );
        for outcome in &run.legitimate.by_group {
            text.push_str(&line(outcome, report.baseline.as_ref()));
        }
    }
    text
}

fn line(outcome: &GroupOutcome, baseline: Option<&Run>) -> String {
    let success = outcome.success;
    let title = format!("  {}, {}", outcome.group, protocol(outcome.kind));
    let times = outcome.connect_milliseconds;
    let time = |of: fn(ConnectTimes) -> f64| milliseconds(times.map(of));
    format!(
        "{title:<38}{:>7}{:>10}{:>11}{:>8}{:>11}{:>11}{:>11}\n",
        grouped(success.attempted),
        percent(success.at_once_ratio()),
        percent(success.eventually_ratio()),
        grouped(success.attempted - success.eventually),
        time(|times| times.median),
        time(|times| times.p99),
        milliseconds(added(outcome, baseline)),
    )
}

/// What the flood adds to the median of the same group without one.
fn added(outcome: &GroupOutcome, baseline: Option<&Run>) -> Option<f64> {
    let without = outcome.counterpart(baseline?)?.connect_milliseconds?;
    Some(outcome.connect_milliseconds?.median - without.median)
}

fn protocol(kind: FlowKind) -> &'static str {
    match kind {
        FlowKind::TcpInward | FlowKind::TcpOutward => "TCP",
        FlowKind::UdpInward | FlowKind::UdpOutward => "UDP",
    }
}

fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{time:.1} ms"))
}
