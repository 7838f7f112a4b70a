//! The result of a run, as JSON. Within a `schema_version`, fields are only added.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use ctguard_control::StageChange;

use super::{
    group::Group,
    outcome::{Counts, FillPoint, Record, Refused, Tally},
    quantity::{Ratio, ratio},
    scenario::Scenario,
};
use ctguard_units::real;

const SCHEMA_VERSION: u32 = 1;

pub(super) struct Finished {
    pub(super) record: Record,
    pub(super) daemon: DaemonReport,
    /// Entries that the kernel replaced.
    pub(super) replaced: u64,
    pub(super) stages: Vec<StageReport>,
}

/// What `ctguard simulate --json` prints.
#[derive(Debug, Serialize)]
pub struct SimulationReport {
    schema_version: u32,
    pub(super) scenario: String,
    pub(super) seed: u64,
    pub(super) duration_seconds: f64,
    /// `table` and `groups` are of this time only.
    pub(super) measured_from_seconds: f64,
    pub(super) measured_until_seconds: f64,
    pub(super) table: TableReport,
    pub(super) daemon: DaemonReport,
    pub(super) stages: Vec<StageReport>,
    pub(super) groups: Vec<GroupReport>,
    pub(super) expectations: Vec<Expectation>,
    pub(super) series: Vec<Point>,
}

#[derive(Debug, Serialize)]
pub(super) struct TableReport {
    pub(super) max_entries: u64,
    pub(super) target_ratio: f64,
    pub(super) peak_entries: u64,
    pub(super) fill_peak_ratio: f64,
    pub(super) fill_mean_ratio: f64,
    pub(super) fill_deviation_ratio: f64,
    /// In the whole run, by the kernel.
    pub(super) replaced_entries: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct DaemonReport {
    pub(super) ticks: u64,
    /// Ticks because the data path woke the daemon.
    pub(super) wakeups: u64,
    /// Dumps of the table.
    pub(super) looks: u64,
    /// By class.
    pub(super) deleted_entries: BTreeMap<&'static str, u64>,
    /// Those of flows that still sent.
    pub(super) deleted_active: u64,
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
    pub(super) class: &'static str,
    /// `null` if the sources are spoofed or recorded.
    pub(super) sources: Option<u32>,
    pub(super) known_before: bool,
    pub(super) answers_challenges: bool,
    pub(super) flows: u64,
    /// Of all groups' flows that succeeded.
    pub(super) share_ratio: Option<f64>,
    pub(super) at_once: u64,
    pub(super) at_once_ratio: Option<f64>,
    pub(super) at_once_in_attacks_ratio: Option<f64>,
    pub(super) at_once_outside_attacks_ratio: Option<f64>,
    pub(super) after_retry: u64,
    pub(super) success_ratio: Option<f64>,
    pub(super) failed: u64,
    pub(super) unfinished: u64,
    /// What retransmissions cost the flows that succeeded.
    pub(super) delay_p50_milliseconds: Option<u64>,
    pub(super) delay_p99_milliseconds: Option<u64>,
    /// Jain's index; `null` if there are too few flows per source.
    pub(super) fairness_index: Option<f64>,
    pub(super) refused_packets: Refused,
}

#[derive(Debug, Serialize)]
pub(super) struct Expectation {
    /// `None` for the table.
    pub(super) group: Option<String>,
    pub(super) what: &'static str,
    pub(super) least: Option<Ratio>,
    pub(super) most: Option<Ratio>,
    /// `None` if there were no flows.
    pub(super) found: Option<f64>,
    pub(super) met: bool,
}

/// A step of the series.
#[derive(Debug, Serialize)]
pub(super) struct Point {
    pub(super) seconds: f64,
    #[serde(flatten)]
    pub(super) fill: FillPoint,
    pub(super) groups: Vec<Counts>,
}

impl SimulationReport {
    pub(super) fn new(
        name: String,
        seed: u64,
        scenario: &Scenario,
        target_ppm: u32,
        finished: Finished,
    ) -> Self {
        let Finished { record, daemon, replaced, stages } = finished;
        let table = TableReport {
            replaced_entries: replaced,
            ..TableReport::new(&record, scenario.table.max, target_ppm)
        };
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
            daemon,
            stages,
            groups,
            expectations,
            series: series(&record),
        }
    }

    /// Whether all expectations of the scenario are met.
    pub fn is_as_expected(&self) -> bool {
        self.expectations.iter().all(|expectation| expectation.met)
    }
}

impl StageReport {
    pub(super) fn new(at: Duration, change: &StageChange) -> Self {
        Self {
            seconds: at.as_secs_f64(),
            class: change.class.name(),
            from: change.from.name(),
            to: change.to.name(),
        }
    }
}

impl TableReport {
    fn new(record: &Record, max: u32, target_ppm: u32) -> Self {
        let max = u64::from(max);
        let fill = |entries| ratio(entries, max).unwrap_or(0.0);
        let looks: Vec<FillPoint> = record.measured_fill().collect();
        let peak_entries = looks.iter().map(|look| look.peak).max().unwrap_or(0);
        let count = real(u64::try_from(looks.len()).unwrap_or(u64::MAX)).max(1.0);
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
            replaced_entries: 0,
        }
    }
}

impl GroupReport {
    fn new(group: &Group, tally: &Tally, succeeded_of_all: u64) -> Self {
        let (measured, attacked) = (&tally.measured, &tally.in_attacks);
        let Counts { flows, at_once, after_retry, failed, refused } = *measured;
        let succeeded = measured.succeeded();
        Self {
            name: group.name.clone(),
            class: group.class.name(),
            sources: (!group.spoofed && tally.counts_sources()).then_some(group.sources),
            known_before: group.known_before,
            answers_challenges: group.answers_challenges(),
            flows,
            share_ratio: ratio(succeeded, succeeded_of_all),
            at_once,
            at_once_ratio: ratio(at_once, flows),
            at_once_in_attacks_ratio: ratio(attacked.at_once, attacked.flows),
            at_once_outside_attacks_ratio: ratio(
                at_once - attacked.at_once,
                flows - attacked.flows,
            ),
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
    let expect = |group: Option<&str>,
                  what,
                  least: Option<Ratio>,
                  most: Option<Ratio>,
                  found: Option<f64>| {
        least.or(most)?;
        let is_met = |found: f64| {
            least.is_none_or(|least| found >= least.0) && most.is_none_or(|most| found <= most.0)
        };
        // Where there were no flows, nothing went wrong.
        let met = found.is_none_or(is_met);
        Some(Expectation { group: group.map(str::to_owned), what, least, most, found, met })
    };
    let expected = &scenario.expect;
    let (peak, deviation) = (table.fill_peak_ratio, table.fill_deviation_ratio);
    let sum = |count: fn(&GroupReport) -> u64| groups.iter().map(count).sum();
    let refused = ratio(sum(|group| group.refused_packets.total()), sum(|group| group.flows));
    let of_table = [
        expect(None, "fill", None, expected.fill_at_most, Some(peak)),
        expect(None, "deviation", None, expected.deviation_at_most, Some(deviation)),
        expect(Some("all groups"), "refused packets", None, expected.refused_at_most, refused),
    ];
    let of_groups = scenario.groups.iter().flat_map(|group| {
        let report = groups.iter().find(|report| report.name == group.name);
        let least = |what, least, found: fn(&GroupReport) -> Option<f64>| {
            expect(Some(&group.name), what, least, None, report.and_then(found))
        };
        [
            least("at once", group.expect_at_once, |report| report.at_once_ratio),
            least("at once in attacks", group.expect_in_attacks, |report| {
                report.at_once_in_attacks_ratio
            }),
            least("at once outside attacks", group.expect_outside_attacks, |report| {
                report.at_once_outside_attacks_ratio
            }),
            least("success", group.expect_success, |report| report.success_ratio),
            least("fairness", group.expect_fairness, |report| report.fairness_index),
        ]
    });
    of_table.into_iter().chain(of_groups).flatten().collect()
}

fn series(record: &Record) -> Vec<Point> {
    let moments = (0_u32..).map(|index| record.step * index);
    let points = record.fill.iter().zip(moments).enumerate();
    let point = |(index, (fill, at)): (usize, (&FillPoint, Duration))| {
        let tallies = record.tallies.iter().filter(|tally| !tally.series.is_empty());
        let groups = tallies.map(|tally| tally.series.get(index).copied().unwrap_or_default());
        Point { seconds: at.as_secs_f64(), fill: *fill, groups: groups.collect() }
    };
    points.map(point).collect()
}
