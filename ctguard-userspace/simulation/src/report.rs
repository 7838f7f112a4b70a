//! What a run came to, as JSON; fields are only ever added within a `schema_version`.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use ctguard_control::StageChange;

use super::{
    group::{ClassName, Group},
    outcome::{Counts, FillPoint, Record, Refused, Tally},
    quantity::{Ratio, float, ratio},
    run::Finished,
    scenario::Scenario,
};

const SCHEMA_VERSION: u32 = 1;

/// What `ctguard simulate --json` prints.
#[derive(Debug, Serialize)]
pub struct SimulationReport {
    schema_version: u32,
    /// The name of the file.
    pub(super) scenario: String,
    pub(super) seed: u64,
    pub(super) duration_seconds: f64,
    /// Summaries count the flows that began in between.
    pub(super) measured_from_seconds: f64,
    pub(super) measured_until_seconds: f64,
    pub(super) table: TableReport,
    pub(super) daemon: DaemonReport,
    /// What became of the stages, and when.
    pub(super) stages: Vec<StageReport>,
    pub(super) groups: Vec<GroupReport>,
    pub(super) expectations: Vec<Expectation>,
    pub(super) series: Vec<Point>,
}

#[derive(Debug, Serialize)]
pub(super) struct TableReport {
    pub(super) max_entries: u64,
    pub(super) target_ratio: f64,
    /// The most at any moment of the measured time.
    pub(super) peak_entries: u64,
    pub(super) fill_peak_ratio: f64,
    pub(super) fill_mean_ratio: f64,
    pub(super) fill_deviation_ratio: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct DaemonReport {
    pub(super) ticks: u64,
    /// Ticks that the data path called for.
    pub(super) wakeups: u64,
}

/// A class that entered another stage.
#[derive(Debug, Serialize)]
pub(super) struct StageReport {
    pub(super) seconds: f64,
    pub(super) class: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupReport {
    pub(super) name: String,
    pub(super) class: ClassName,
    /// Absent where each packet has another, or nobody counted.
    pub(super) sources: Option<u32>,
    pub(super) known_before: bool,
    pub(super) answers_challenges: bool,
    pub(super) flows: u64,
    /// Of all flows of all groups that succeeded.
    pub(super) share_ratio: Option<f64>,
    pub(super) at_once: u64,
    pub(super) at_once_ratio: Option<f64>,
    pub(super) after_retry: u64,
    pub(super) success_ratio: Option<f64>,
    /// Given up.
    pub(super) failed: u64,
    /// Neither had succeeded nor was given up at the end.
    pub(super) unfinished: u64,
    /// What flows that succeeded had waited for a retransmission.
    pub(super) delay_p50_milliseconds: Option<u64>,
    pub(super) delay_p99_milliseconds: Option<u64>,
    /// Jain's index of the flows of each source; absent where they are too few to tell.
    pub(super) fairness_index: Option<f64>,
    pub(super) refused_packets: Refused,
}

/// What a scenario expects, and what was found.
#[derive(Debug, Serialize)]
pub(super) struct Expectation {
    /// None: the table.
    pub(super) group: Option<String>,
    pub(super) what: &'static str,
    pub(super) least: Option<f64>,
    pub(super) most: Option<f64>,
    /// Absent where nothing was measured.
    pub(super) found: Option<f64>,
    pub(super) met: bool,
}

/// A step of the series.
#[derive(Debug, Serialize)]
pub(super) struct Point {
    pub(super) seconds: f64,
    pub(super) entries: u64,
    pub(super) peak_entries: u64,
    pub(super) groups: Vec<GroupPoint>,
}

/// Flows of a group that began in a step, and packets of it that were refused.
#[derive(Debug, Default, Serialize)]
pub(super) struct GroupPoint {
    pub(super) flows: u64,
    pub(super) at_once: u64,
    pub(super) after_retry: u64,
    pub(super) refused_packets: u64,
}

impl SimulationReport {
    pub(super) fn new(
        name: String,
        seed: u64,
        scenario: &Scenario,
        target_ppm: u32,
        finished: &Finished,
    ) -> Self {
        let Finished { record, ticks, woken, changes } = finished;
        let table = TableReport::new(record, scenario.table.max, target_ppm);
        let succeeded = record.tallies.iter().map(|tally| tally.measured.succeeded()).sum();
        let groups: Vec<_> = scenario
            .groups
            .iter()
            .zip(&record.tallies)
            .filter(|(_, tally)| !tally.series.is_empty())
            .map(|(group, tally)| GroupReport::new(group, tally, succeeded))
            .collect();
        let expectations = expectations(scenario, &table, &groups);
        Self {
            schema_version: SCHEMA_VERSION,
            scenario: name,
            seed,
            duration_seconds: scenario.duration.0.as_secs_f64(),
            measured_from_seconds: record.measured.start.as_secs_f64(),
            measured_until_seconds: record.measured.end.as_secs_f64(),
            table,
            daemon: DaemonReport { ticks: *ticks, wakeups: *woken },
            stages: changes.iter().map(StageReport::new).collect(),
            groups,
            expectations,
            series: series(record),
        }
    }

    /// Whether everything was found that the scenario expects.
    pub fn is_as_expected(&self) -> bool {
        self.expectations.iter().all(|expectation| expectation.met)
    }

    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}

impl StageReport {
    fn new((at, change): &(Duration, StageChange)) -> Self {
        let StageChange { class, from, to, .. } = change;
        let (class, from, to) = (class.name(), from.name(), to.name());
        Self { seconds: at.as_secs_f64(), class, from, to }
    }
}

impl TableReport {
    fn new(record: &Record, max: u32, target_ppm: u32) -> Self {
        let max = u64::from(max);
        let fill = |entries| ratio(entries, max).unwrap_or(0.0);
        let looks: Vec<FillPoint> = record.measured_fill().collect();
        let peak_entries = looks.iter().map(|look| look.peak).max().unwrap_or(0);
        let count = float(u64::try_from(looks.len()).unwrap_or(u64::MAX)).max(1.0);
        let fills = || looks.iter().map(|look| fill(look.entries));
        let mean = fills().sum::<f64>() / count;
        let variance = fills().map(|fill| (fill - mean).powi(2)).sum::<f64>() / count;
        Self {
            max_entries: max,
            target_ratio: f64::from(target_ppm) / 1e6,
            peak_entries,
            fill_peak_ratio: fill(peak_entries),
            fill_mean_ratio: mean,
            fill_deviation_ratio: variance.sqrt(),
        }
    }
}

impl GroupReport {
    fn new(group: &Group, tally: &Tally, succeeded_of_all: u64) -> Self {
        let measured = &tally.measured;
        let Counts { flows, at_once, after_retry, failed, refused } = *measured;
        let succeeded = measured.succeeded();
        Self {
            name: group.name.clone(),
            class: group.class,
            sources: (!group.spoofed && tally.tells_sources()).then_some(group.sources),
            known_before: group.known_before,
            answers_challenges: group.answers_challenges(),
            flows,
            share_ratio: ratio(succeeded, succeeded_of_all),
            at_once,
            at_once_ratio: ratio(at_once, flows),
            after_retry,
            success_ratio: ratio(succeeded, flows),
            failed,
            unfinished: flows.saturating_sub(succeeded + failed),
            delay_p50_milliseconds: tally.delay_quantile(0.5),
            delay_p99_milliseconds: tally.delay_quantile(0.99),
            fairness_index: tally.fairness(),
            refused_packets: refused,
        }
    }
}

fn expectations(
    scenario: &Scenario,
    table: &TableReport,
    groups: &[GroupReport],
) -> Vec<Expectation> {
    let most = |what, most: Option<Ratio>, found| {
        let most = most?.0;
        Some(Expectation {
            group: None,
            what,
            least: None,
            most: Some(most),
            found: Some(found),
            met: found <= most,
        })
    };
    let expect = &scenario.expect;
    let of_table = [
        most("fill", expect.fill_at_most, table.fill_peak_ratio),
        most("deviation", expect.deviation_at_most, table.fill_deviation_ratio),
    ];
    let of_groups = scenario.groups.iter().flat_map(|group| {
        let report = groups.iter().find(|report| report.name == group.name);
        let least = |what, least: Option<Ratio>, found: fn(&GroupReport) -> Option<f64>| {
            let least = least?.0;
            let found = report.and_then(found);
            Some(Expectation {
                group: Some(group.name.clone()),
                what,
                least: Some(least),
                most: None,
                found,
                // Of no flows nothing is known, so nothing is wrong with them.
                met: found.is_none_or(|found| found >= least),
            })
        };
        [
            least("at once", group.expect_at_once, |report| report.at_once_ratio),
            least("success", group.expect_success, |report| report.success_ratio),
            least("fairness", group.expect_fairness, |report| report.fairness_index),
        ]
    });
    of_table.into_iter().chain(of_groups).flatten().collect()
}

fn series(record: &Record) -> Vec<Point> {
    let moments = (0_u32..).map(|index| record.step * index);
    let points = record.fill.iter().zip(moments).enumerate();
    points.map(|(index, (look, at))| point(record, index, *look, at)).collect()
}

fn point(record: &Record, index: usize, look: FillPoint, at: Duration) -> Point {
    let groups = record.tallies.iter().filter(|tally| !tally.series.is_empty());
    let groups = groups.map(|tally| {
        tally.series.get(index).map_or_else(GroupPoint::default, |counts| GroupPoint {
            flows: counts.flows,
            at_once: counts.at_once,
            after_retry: counts.after_retry,
            refused_packets: counts.refused.total(),
        })
    });
    Point {
        seconds: at.as_secs_f64(),
        entries: look.entries,
        peak_entries: look.peak,
        groups: groups.collect(),
    }
}
