//! What ctguard costs: a packet by its kind, and a flooded router beside other guards.

mod calm;
mod cases;
mod machine;
mod packets;
mod page;
mod peers;
mod reference;
mod scaling;
mod table;
mod timing;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

use calm::Calm;
use machine::Machine;
use packets::Packets;
use peers::{Peer, Peers};
use scaling::Scaling;

/// What is measured, and how long.
#[derive(clap::Parser, Debug)]
#[command(
    name = "ctguard-bench",
    about = "Time what a packet costs, alone and in a flooded router, beside other guards"
)]
pub struct Options {
    /// Measure this alone; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// In the flooded router, only this; may be repeated
    #[arg(long = "peer", value_enum, value_name = "PEER")]
    peers: Vec<Peer>,
    /// Fewer and shorter rounds, fewer guards, an empty table alone, and no scaling: 90 seconds at
    /// most
    #[arg(long)]
    quick: bool,
    /// Rounds of single packets; each times every kind once
    #[arg(long)]
    rounds: Option<usize>,
    /// Rounds of the flooded router; each floods one with every guard
    #[arg(long)]
    peer_rounds: Option<usize>,
    /// Runs of the program in each timing
    #[arg(long, default_value_t = 500_000)]
    repeat: u32,
    /// Another build of ctguard.bpf.o, timed in turns with this one, packet by packet
    #[arg(long, value_name = "OBJECT")]
    beside: Option<PathBuf>,
    /// The ctguard to try
    #[arg(long, default_value = "target/release/ctguard", value_name = "PATH")]
    ctguard: PathBuf,
    /// Write benchmarks.md and its picture into this directory, for the repository
    #[arg(long, value_name = "DIR", conflicts_with_all = ["only", "peers", "quick", "beside"])]
    docs: Option<PathBuf>,
    /// Where bench.json goes
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    out: PathBuf,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Single packets, by `BPF_PROG_TEST_RUN`
    Packets,
    /// A flooded router, beside other guards
    Peers,
    /// A router that nobody floods
    Calm,
    /// Sources, lists, CPUs, entries
    Scaling,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    packets: Option<Packets>,
    peers: Option<Peers>,
    calm: Option<Calm>,
    scaling: Option<Scaling>,
}

/// Measures what is asked for, tells it, and writes it down. True if every bar holds.
pub fn run(options: &Options) -> Result<bool> {
    let _lock = peers::lock()?;
    let wants = |part| options.only.is_empty() || options.only.contains(&part);
    let packets = wants(Part::Packets).then(|| options.packets()).transpose()?;
    if let Some(packets) = &packets {
        println!("{packets}");
    }
    let peers = wants(Part::Peers).then(|| options.peers()).transpose()?;
    if let Some(peers) = &peers {
        println!("\n{}\n{}", peers.table(), peers.remarks());
    }
    let calm = wants(Part::Calm).then(|| options.calm()).transpose()?;
    if let Some(calm) = &calm {
        println!("{}", calm.table());
    }
    let scaling = (wants(Part::Scaling) && !(options.quick && options.only.is_empty()))
        .then(|| options.scaling())
        .transpose()?;
    if let Some(scaling) = &scaling {
        println!("{}", scaling.tables());
    }
    let report = Report { machine: Machine::here()?, packets, peers, calm, scaling };
    if let Some(directory) = &options.docs {
        page::write(&report, directory)?;
    }
    options.write(&report)?;
    Ok(report.holds())
}

/// Kinds of packets that cost more than their gate, by a few rounds, each with a sentence: what a change
/// must not bring.
pub fn beyond_gates() -> Result<BTreeMap<&'static str, String>> {
    let _lock = peers::lock()?;
    let length = packets::Length { rounds: 5, repeat: 200_000, full: false };
    Ok(packets::run(length, None)?.beyond_gates())
}

impl Options {
    fn packets(&self) -> Result<Packets> {
        let read = |object: &PathBuf| {
            fs::read(object).with_context(|| format!("cannot read {}", object.display()))
        };
        let length = packets::Length {
            rounds: self.rounds.unwrap_or(if self.quick { 5 } else { 21 }),
            repeat: self.repeat,
            full: !self.quick,
        };
        packets::run(length, self.beside.as_ref().map(read).transpose()?.as_deref())
    }

    fn peers(&self) -> Result<Peers> {
        let (rounds, clients, cost) = if self.quick { (1, 400, 300) } else { (3, 800, 600) };
        let length = peers::Length {
            rounds: self.peer_rounds.unwrap_or(rounds),
            clients: Duration::from_millis(clients),
            cost: Duration::from_millis(cost),
        };
        let peers: &[_] = match (&*self.peers, self.quick) {
            ([], true) => &Peer::MOST_COMPARED,
            ([], false) => &Peer::ALL,
            (peers, _) => peers,
        };
        peers::run(&self.ctguard, peers, length)
    }

    fn calm(&self) -> Result<Calm> {
        let (rounds, seconds) = if self.quick { (1, 1) } else { (5, 1) };
        calm::run(&self.ctguard, rounds, seconds)
    }

    fn scaling(&self) -> Result<Scaling> {
        scaling::run(&self.ctguard, if self.quick { 3 } else { 9 })
    }

    fn write(&self, report: &Report) -> Result<()> {
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make {}", self.out.display()))?;
        let path = self.out.join("bench.json");
        let json = serde_json::to_string_pretty(report).context("cannot write the report")?;
        fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Report {
    fn holds(&self) -> bool {
        self.packets.as_ref().is_none_or(Packets::holds)
            && self.peers.as_ref().is_none_or(Peers::holds)
            && self.calm.as_ref().is_none_or(Calm::holds)
            && self.scaling.as_ref().is_none_or(Scaling::holds)
    }
}
