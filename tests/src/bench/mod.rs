//! The cost of a packet by its kind: medians of interleaved rounds, over the floor of a program
//! that does nothing, measured in the same run; with an empty table and with a full one.

mod cases;
mod table;

use std::{fmt, sync::atomic::AtomicBool, time::Duration};

use anyhow::Result;

use crate::{lab, netns::Namespace, sysctl::HostSysctl};
use cases::{Case, Floor};

/// What is measured, and how long.
#[derive(clap::Parser, Debug)]
#[command(
    name = "ctguard-bench",
    about = "Time what a packet costs over a program that does nothing"
)]
pub struct Options {
    /// Rounds; each times every kind of packet once
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Runs of the program in each timing
    #[arg(long, default_value_t = 500_000)]
    repeat: u32,
}

/// One line of the report.
#[derive(Clone, Debug)]
struct Row {
    name: &'static str,
    nanoseconds: f64,
    over_floor: f64,
    bar_ns: Option<u32>,
}

/// Medians of all rounds with one table.
#[derive(Clone, Debug)]
struct Section {
    entries: u32,
    floors: Vec<(Floor, f64)>,
    rows: Vec<Row>,
}

/// Medians of all rounds.
#[derive(Clone, Debug)]
pub struct Report(Vec<Section>);

/// Times every case, in a namespace of its own.
pub fn run(options: &Options) -> Result<Report> {
    let _lock = lab::lock(&|what| eprintln!("ctguard-bench: {what}"), &AtomicBool::new(false))?;
    let _max = HostSysctl::set("net.netfilter.nf_conntrack_max", "524288")?;
    let namespace = Namespace::create("bench")?;
    table::track(&namespace)?;
    namespace.run(|| {
        let live = table::Live::open()?;
        let empty = section(options, &live, 0)?;
        table::fill()?;
        Ok(Report(vec![empty, section(options, &live, table::ENTRIES)?]))
    })
}

fn section(options: &Options, live: &table::Live, entries: u32) -> Result<Section> {
    let floors = cases::floors()?;
    let cases = cases::cases(entries > 0, live)?;
    let mut floor_times = vec![Vec::new(); floors.len()];
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..options.rounds.max(1) {
        let mut floor_now = Vec::new();
        for (floor, times) in floors.iter().zip(&mut floor_times) {
            let time = nanoseconds(floor(options.repeat)?);
            floor_now.push(time);
            times.push(time);
        }
        for (case, times) in cases.iter().zip(&mut times) {
            let time = nanoseconds((case.time)(options.repeat)?);
            let floor = floor_of(case, &floor_now);
            times.push((time, time - floor));
        }
    }
    let rows = cases.iter().zip(&times).map(|(case, times)| Row {
        name: case.name,
        nanoseconds: median(times.iter().map(|(time, _)| *time).collect()),
        over_floor: median(times.iter().map(|(_, over)| *over).collect()),
        bar_ns: case.bar_ns,
    });
    Ok(Section {
        entries,
        rows: rows.collect(),
        floors: Floor::ALL.into_iter().zip(floor_times.into_iter().map(median)).collect(),
    })
}

fn floor_of(case: &Case, floors: &[f64]) -> f64 {
    let position = Floor::ALL.iter().position(|floor| *floor == case.floor);
    position.and_then(|position| floors.get(position)).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// Whether every bar holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        let mut rows = self.0.iter().flat_map(|section| &section.rows);
        rows.all(|row| row.bar_ns.is_none_or(|bar| row.over_floor <= f64::from(bar)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Section { entries, floors, rows } in &self.0 {
            let table = format!("table of {entries} entries");
            writeln!(f, "{table:<42} {:>8} {:>11} {:>6}", "ns", "over floor", "bar")?;
            for (floor, time) in floors {
                writeln!(f, "{:<42} {time:>8.1}", floor.name())?;
            }
            for row in rows {
                let bar = row.bar_ns.map_or(String::from("–"), |bar| format!("≤ {bar}"));
                let (name, time, over) = (row.name, row.nanoseconds, row.over_floor);
                writeln!(f, "{name:<42} {time:>8.1} {over:>+11.1} {bar:>6}")?;
            }
            writeln!(f)?;
        }
        write!(f, "medians; nanoseconds by BPF_PROG_TEST_RUN")
    }
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
