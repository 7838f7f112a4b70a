//! The cost of a packet by its kind: medians of interleaved rounds, over the floor of a program
//! that does nothing, measured in the same run; with an empty table and with a full one.

mod cases;
mod table;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{lab, netns::Namespace, sysctl::HostSysctl};
use cases::{Case, Floor, Subject};

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
    /// Another build of ctguard.bpf.o, timed in turns with this one
    #[arg(long, value_name = "OBJECT")]
    beside: Option<PathBuf>,
}

/// One line of the report.
#[derive(Clone, Debug)]
struct Row {
    name: &'static str,
    nanoseconds: f64,
    over_floor: f64,
    bar_ns: Option<u32>,
    beside: Option<Beside>,
}

/// What the other build takes.
#[derive(Clone, Copy, Debug)]
struct Beside {
    nanoseconds: f64,
    /// This build's time by the other's, of the middle half of all rounds.
    ratio: f64,
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
    let beside = options.beside.as_deref().map(read).transpose()?;
    namespace.run(|| {
        let live = table::Live::open()?;
        let section = |entries| section(options, &live, beside.as_deref(), entries);
        let empty = section(0)?;
        table::fill()?;
        Ok(Report(vec![empty, section(table::ENTRIES)?]))
    })
}

fn read(object: &Path) -> Result<Vec<u8>> {
    fs::read(object).with_context(|| format!("cannot read {}", object.display()))
}

fn section(
    options: &Options,
    live: &table::Live,
    beside: Option<&[u8]>,
    entries: u32,
) -> Result<Section> {
    let subject = Subject { object: None, full: entries > 0 };
    let floors = cases::floors()?;
    let cases = cases::cases(subject, live)?;
    let others = match beside {
        Some(_) => cases::cases(Subject { object: beside, ..subject }, live)?,
        None => Vec::new(),
    };
    let mut floor_times = vec![Vec::new(); floors.len()];
    let mut times = vec![Vec::new(); cases.len()];
    let mut other_times = vec![Vec::new(); others.len()];
    for round in 0..options.rounds.max(1) {
        let mut floor_now = Vec::new();
        for (floor, times) in floors.iter().zip(&mut floor_times) {
            let time = nanoseconds(floor(options.repeat)?);
            floor_now.push(time);
            times.push(time);
        }
        for (position, case) in cases.iter().enumerate() {
            let time_other =
                || others.get(position).map(|other| (other.time)(options.repeat)).transpose();
            // The two take turns in going first.
            let before = if round % 2 == 0 { time_other()? } else { None };
            let time = nanoseconds((case.time)(options.repeat)?);
            let other = if round % 2 == 0 { before } else { time_other()? };
            times[position].push((time, time - floor_of(case, &floor_now)));
            if let Some(other) = other.map(nanoseconds) {
                other_times[position].push(other);
            }
        }
    }
    let rows = cases.iter().zip(&times).enumerate().map(|(position, (case, times))| Row {
        name: case.name,
        nanoseconds: median(times.iter().map(|(time, _)| *time)),
        over_floor: median(times.iter().map(|(_, over)| *over)),
        bar_ns: case.bar_ns,
        beside: other_times.get(position).map(|others| Beside {
            nanoseconds: median(others.iter().copied()),
            ratio: middle(times.iter().map(|(time, _)| *time)) / middle(others.iter().copied()),
        }),
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
                write!(f, "{name:<42} {time:>8.1} {over:>+11.1} {bar:>6}")?;
                if let Some(Beside { nanoseconds, ratio }) = row.beside {
                    write!(f, "   beside {nanoseconds:>8.1}, ratio {ratio:.3}")?;
                }
                writeln!(f)?;
            }
            writeln!(f)?;
        }
        write!(f, "medians; nanoseconds by BPF_PROG_TEST_RUN")
    }
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// The mean of the middle half: the kernel tells whole nanoseconds, of which a median would be one.
fn middle(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    let quarter = numbers.len() / 4;
    let half = numbers.get(quarter..numbers.len() - quarter).unwrap_or(&[]);
    half.iter().sum::<f64>() / half.iter().map(|_| 1.0).sum::<f64>()
}

fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
