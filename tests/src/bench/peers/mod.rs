//! ctguard beside others, end to end: a NAT router of one core under a flood of SYNs, what a
//! packet of the flood costs it, and how many new clients are served meanwhile.

mod newcomers;
mod peer;
mod told;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use crate::{
    addresses::{FLOOD_PORT, Family},
    arrival::Receivers,
    cpus::Cpus,
    flood::Flood,
    lab, netns,
    object::{self, Program},
    process::CpuMeter,
    recipe::{FloodKind, Rate},
    router::{ISP, Network},
    sysctl::{self, HostSysctl},
    wan,
};
pub(crate) use newcomers::Server;
pub(crate) use peer::Peer;

/// Entries that the router's table takes, as in the lab.
const TABLE: &str = "16384";
/// Among which flood new clients try: a veth's queue loses packets of faster ones by itself.
const PACED: Rate = Rate::PerSecond(500_000);
/// The exponents of two of the numbers of sources.
const FEW: u32 = 12;
const MANY: u32 = 28;

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) rounds: usize,
    /// New clients try for so long.
    pub(crate) clients: Duration,
    /// The cost is measured for so long.
    pub(crate) cost: Duration,
}

/// One peer under one flood, in one round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    nanoseconds: f64,
    success: f64,
    daemon_ratio: f64,
}

/// One peer under one flood.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    peer: Peer,
    sources_bits: u32,
    /// Of the processor that receives for the router.
    nanoseconds: f64,
    /// The part of new clients that connected without waiting for a retransmission.
    success: f64,
    /// What the daemon takes of a processor besides.
    daemon_ratio: f64,
    rounds: Vec<Sample>,
}

/// Peers beside each other.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Peers {
    measured: Vec<Measured>,
    /// Who could not be measured, and why.
    missing: Vec<(Peer, String)>,
}

/// Floods a router of each kind in turn.
pub(crate) fn run(ctguard: &Path, peers: &[Peer], length: Length) -> Result<Peers> {
    netns::remove_orphans();
    sysctl::restore_orphans();
    let _table = HostSysctl::set("net.netfilter.nf_conntrack_max", TABLE)?;
    let _hash = HostSysctl::set("net.netfilter.nf_conntrack_buckets", TABLE)?;
    // A thread of its own, so that the caller keeps its CPUs.
    thread::scope(|scope| {
        let rounds = scope.spawn(|| interleaved(ctguard, peers, length));
        rounds.join().map_err(|_| anyhow!("the bench's thread panicked"))?
    })
}

fn interleaved(ctguard: &Path, peers: &[Peer], length: Length) -> Result<Peers> {
    let cpus = Cpus::share_out()?;
    cpus.enter_others()?;
    let cases: Vec<_> = [FEW, MANY]
        .into_iter()
        .flat_map(|bits| peers.iter().map(move |peer| (*peer, bits)))
        .collect();
    let mut rounds = vec![Vec::new(); cases.len()];
    let mut missing: Vec<(Peer, String)> = Vec::new();
    for round in 0..length.rounds.max(1) {
        eprintln!("ctguard-bench: peers, round {} of {}", round + 1, length.rounds.max(1));
        for (&(peer, bits), samples) in cases.iter().zip(&mut rounds) {
            if missing.iter().any(|(without, _)| *without == peer) {
                continue;
            }
            match sample(peer, bits, ctguard, length, cpus) {
                Ok(sample) => samples.push(sample),
                // Whatever is not installed here leaves the others to compare.
                Err(error) if peer != Peer::Ctguard && peer != Peer::DropOnly => {
                    missing.push((peer, format!("{error:#}")));
                }
                Err(error) => return Err(error.context(peer.name())),
            }
        }
    }
    let measured = cases.into_iter().zip(rounds).filter(|(_, rounds)| !rounds.is_empty());
    let measured = measured.map(|((peer, sources_bits), rounds)| Measured {
        peer,
        sources_bits,
        nanoseconds: median(rounds.iter().map(|sample| sample.nanoseconds)),
        success: median(rounds.iter().map(|sample| sample.success)),
        daemon_ratio: median(rounds.iter().map(|sample| sample.daemon_ratio)),
        rounds,
    });
    Ok(Peers { measured: measured.collect(), missing })
}

/// One peer on a router of its own: first clients, in a flood that the queue bears, then the cost
/// at full speed.
fn sample(peer: Peer, bits: u32, ctguard: &Path, length: Length, cpus: Cpus) -> Result<Sample> {
    let network = Network::build()?;
    let receivers = Receivers::start(&network, crate::router::WAN, cpus)?;
    // What is sent back by XDP_TX arrives only where the other end has a program, too.
    let _nowhere = network.internet.run(|| object::attach(Program::Nowhere, ISP))?;
    let _server = Server::start(&network.inside)?;
    let post = peer.start(&network.router, ctguard, &log()?)?;
    let flood = |rate| {
        let to = (Family::Ipv4, FLOOD_PORT);
        Flood::of_sources(&network, FloodKind::SynSpoofed, bits, rate, to, cpus)
    };
    let paced = flood(PACED)?;
    thread::sleep(SETTLES);
    let success = newcomers::connect(&network, length.clients)?;
    paced.stop()?;

    let full = flood(Rate::Full)?;
    thread::sleep(SETTLES);
    let received = || wan::received(&network.router, crate::router::WAN);
    let (before, meter, began) = (received()?, receivers.meter()?, Instant::now());
    let daemon = post.daemon().map(CpuMeter::start).transpose()?;
    thread::sleep(length.cost);
    let ratio = meter.ratio()?;
    let daemon_ratio = daemon.map_or(Ok(0.0), |daemon| daemon.ratio())?;
    let (packets, lasted) = (received()? - before, began.elapsed());
    full.stop()?;
    #[expect(clippy::cast_precision_loss, reason = "a flood has fewer than 2^52 packets")]
    let nanoseconds = ratio * lasted.as_secs_f64() * 1e9 / packets as f64;
    Ok(Sample { nanoseconds, success, daemon_ratio })
}

/// A guard has noticed a flood after so long.
const SETTLES: Duration = Duration::from_millis(600);

/// Where what a daemon says goes.
pub(crate) fn log() -> Result<PathBuf> {
    let directory = PathBuf::from("target/bench");
    std::fs::create_dir_all(&directory).context("cannot make target/bench")?;
    Ok(directory.join("ctguard.log"))
}

pub(crate) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One bench at a time, and none beside a lab.
pub(crate) fn lock() -> Result<std::fs::File> {
    lab::lock(&|what| eprintln!("ctguard-bench: {what}"), &AtomicBool::new(false))
}
