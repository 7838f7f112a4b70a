//! The cost of a packet by its kind: medians of interleaved rounds, over the floor of a program
//! that only drops, measured in the same run.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{
    TestRunOptions,
    programs::{TestRun as _, Xdp},
};

use crate::{
    data_path::{DataPath, Setup},
    frames::{self, flags},
    object,
};

/// What is measured, and how long.
#[derive(clap::Parser, Debug)]
#[command(
    name = "ctguard-bench",
    about = "Time what a packet costs over a program that only drops"
)]
pub struct Options {
    /// Rounds; each times every kind of packet once
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Runs of the program in each timing
    #[arg(long, default_value_t = 500_000)]
    repeat: u32,
}

/// A kind of packet and what it may cost.
struct Case {
    name: &'static str,
    bar_ns: Option<u32>,
    path: DataPath,
    frame: Vec<u8>,
}

/// One line of the report.
#[derive(Clone, Debug)]
struct Row {
    name: &'static str,
    nanoseconds: f64,
    over_floor: f64,
    bar_ns: Option<u32>,
}

/// Medians of all rounds.
#[derive(Clone, Debug)]
pub struct Report {
    floor_ns: f64,
    rows: Vec<Row>,
}

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Times every case.
pub fn run(options: &Options) -> Result<Report> {
    let mut floor = object::load()?;
    let floor: &Xdp = object::program(&mut floor, "lab_floor")?;
    let cases = cases()?;
    let floor_frame = frames::tcp((CLIENT, 1), (SERVER, 80), flags::SYN)?;

    let mut floor_times = Vec::new();
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..options.rounds.max(1) {
        let options_in = TestRunOptions {
            data_in: Some(&floor_frame),
            repeat: options.repeat,
            ..TestRunOptions::default()
        };
        let floor_time = floor.test_run(options_in)?.duration;
        floor_times.push(nanoseconds(floor_time));
        for (case, times) in cases.iter().zip(&mut times) {
            let time = case.path.time(&case.frame, options.repeat)?;
            times.push((nanoseconds(time), nanoseconds(time) - nanoseconds(floor_time)));
        }
    }

    let rows = cases
        .iter()
        .zip(&mut times)
        .map(|(case, times)| Row {
            name: case.name,
            nanoseconds: median(times.iter().map(|(time, _)| *time).collect()),
            over_floor: median(times.iter().map(|(_, over)| *over).collect()),
            bar_ns: case.bar_ns,
        })
        .collect();
    Ok(Report { floor_ns: median(floor_times), rows })
}

fn cases() -> Result<Vec<Case>> {
    let syn = frames::tcp((CLIENT, 1), (SERVER, 80), flags::SYN)?;
    let ack = frames::tcp((CLIENT, 1), (SERVER, 80), flags::ACK)?;
    let udp = frames::udp((CLIENT, 1), (SERVER, 9))?;
    Ok(vec![
        Case {
            name: "SYN, one source, refused by its ceiling",
            bar_ns: Some(30),
            path: exhausted(&syn)?,
            frame: syn.clone(),
        },
        Case {
            name: "established TCP segment",
            bar_ns: Some(12),
            path: established(&syn, &ack)?,
            frame: ack.clone(),
        },
        Case {
            name: "UDP, one source, refused by its ceiling",
            bar_ns: None,
            path: exhausted(&udp)?,
            frame: udp.clone(),
        },
        Case {
            name: "UDP of a known flow",
            bar_ns: None,
            path: {
                let path = DataPath::load(Setup::default())?;
                path.judge(&udp)?;
                path.leave(&frames::udp((SERVER, 9), (CLIENT, 1))?)?;
                path.judge(&udp)?;
                path
            },
            frame: udp,
        },
    ])
}

/// A data path in which the packet's source has spent its burst, at a rate that refills nothing
/// worth mentioning while it is timed.
fn exhausted(frame: &[u8]) -> Result<DataPath> {
    let path = DataPath::load(Setup { rate: 1, burst: 1, ..Setup::default() })?;
    // The source's burst goes to another tuple of the same source, so that the packet's own is
    // no repetition.
    let mut other = frame.to_vec();
    let port = other.get_mut(34).context("a frame has a port")?;
    *port ^= 1;
    for _ in 0..4 {
        path.judge(&other)?;
    }
    Ok(path)
}

fn established(syn: &[u8], ack: &[u8]) -> Result<DataPath> {
    let path = DataPath::load(Setup::default())?;
    path.judge(syn)?;
    path.leave(&frames::tcp_data((SERVER, 80), (CLIENT, 1))?)?;
    path.judge(ack)?;
    Ok(path)
}

impl Report {
    /// Whether every bar holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.bar_ns.is_none_or(|bar| row.over_floor <= f64::from(bar)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<42} {:>8} {:>11} {:>6}", "packet", "ns", "over floor", "bar")?;
        writeln!(f, "{:<42} {:>8.1}", "floor: a program that only drops", self.floor_ns)?;
        for row in &self.rows {
            let bar = row.bar_ns.map_or(String::from("–"), |bar| format!("≤ {bar}"));
            let (name, time, over) = (row.name, row.nanoseconds, row.over_floor);
            writeln!(f, "{name:<42} {time:>8.1} {over:>+11.1} {bar:>6}")?;
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
