//! How costs grow: with sources, with the deny list, with a second CPU, with entries of the table.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use ctguard_layout::{CLASS_SLOTS, Ceiling, Interface, List, units::Ticks};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use super::{
    cases::{self, Subject},
    packets::{middle, nanoseconds},
    reference::{Bucket, Floor},
    table,
    timing::{self, Before, DROP, PASS, Timer},
};
use crate::{
    daemon::Daemon,
    data_path::{DataPath, Setup},
    guard::{Guard, Orders},
    netns::Namespace,
    process::CpuMeter,
    router::WAN,
    sysctl::HostSysctl,
};

/// Runs of a program in each timing.
const REPEAT: u32 = 300_000;
/// Exponents of the numbers of sources.
const SOURCES: [u32; 7] = [0, 8, 12, 16, 20, 24, 28];
const PREFIXES: [u32; 4] = [0, 1_000, 100_000, 1_000_000];
/// The /24 networks that sources are of.
const MOST_PREFIXES: u32 = 1 << 20;
/// 192.0.0.0, the first source.
const FIRST_SOURCE: u32 = 192 << 24;
const ENTRIES: [u32; 3] = [0, 65_536, 250_000];
const SUBJECT: Subject<'static> = Subject { object: None, full: false };

/// Bars of a list: seconds to load a million prefixes, and nanoseconds that they add.
const LOAD_SECONDS: f64 = 2.0;
const LIST_NANOSECONDS: f64 = 40.0;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Scaling {
    /// Nanoseconds over the floor of a refused SYN: exponent of the sources, then ctguard, array
    /// bucket, LRU bucket.
    sources: Vec<(u32, [f64; 3])>,
    /// Prefixes on the deny list, seconds to put them there, nanoseconds over the floor of a refused
    /// SYN that is on none.
    lists: Vec<(u32, f64, f64)>,
    /// What two CPUs share, nanoseconds a packet on one alone, and on each of both.
    cpus: Vec<(&'static str, f64, f64)>,
    /// Entries of the table, the part of a CPU that the daemon takes, its seconds to start.
    daemon: Vec<(u32, f64, f64)>,
}

/// Measures all of them.
pub(super) fn run(ctguard: &Path, rounds: usize) -> Result<Scaling> {
    let _max = HostSysctl::set("net.netfilter.nf_conntrack_max", "524288")?;
    let namespace = Namespace::create("bench")?;
    table::track(&namespace)?;
    let (sources, lists, cpus) =
        namespace.run(|| Ok((by_sources(rounds)?, by_lists(rounds)?, by_cpus(rounds)?)))?;
    let daemon = ENTRIES.into_iter().map(|entries| daemon_with(ctguard, entries));
    Ok(Scaling { sources, lists, cpus, daemon: daemon.collect::<Result<_>>()? })
}

fn by_sources(rounds: usize) -> Result<Vec<(u32, [f64; 3])>> {
    let syn = cases::syn()?;
    let floor = Floor::SpoofedDrop.timer(&syn)?;
    let timers = SOURCES.map(|bits| -> Result<[Timer; 3]> {
        Ok([
            refused(Setup { grant: 0, ..Setup::default() }, bits)?,
            Bucket::Array.sources(bits, &syn)?,
            Bucket::Lru.sources(bits, &syn)?,
        ])
    });
    let mut measured = Vec::new();
    for (bits, timers) in SOURCES.into_iter().zip(timers) {
        let timers = timers?;
        measured.push((bits, timers.each_ref().map(|_| Vec::new()), timers));
    }
    for _ in 0..rounds {
        for (_, times, timers) in &mut measured {
            let floor = nanoseconds(floor(REPEAT)?);
            for (times, timer) in times.iter_mut().zip(timers) {
                times.push(nanoseconds(timer(REPEAT)?) - floor);
            }
        }
    }
    Ok(measured.into_iter().map(|(bits, times, _)| (bits, times.map(middle))).collect())
}

/// Refused SYNs of so many sources.
fn refused(setup: Setup, bits: u32) -> Result<Timer> {
    let mut path = SUBJECT.path(setup)?;
    path.set_interface(|interface| interface.answers_nothing = 1)?;
    spoofed(path, bits, &[DROP])
}

fn spoofed(path: DataPath, bits: u32, verdicts: &'static [u32]) -> Result<Timer> {
    let timer = Before::Spoof.timer_of(bits, path.ingress().fd()?, &cases::syn()?, verdicts)?;
    Ok(Box::new(move |repeat| {
        // The program lives as long as its path.
        let _ = &path;
        timer(repeat)
    }))
}

fn by_lists(rounds: usize) -> Result<Vec<(u32, f64, f64)>> {
    let floor = Floor::SpoofedDrop.timer(&cases::syn()?)?;
    let mut timers = Vec::new();
    for prefixes in PREFIXES {
        let setup = Setup { grant: 0, denied: prefixes.max(1), ..Setup::default() };
        let mut path = SUBJECT.path(setup)?;
        path.set_interface(|interface| interface.answers_nothing = 1)?;
        path.set_environment(|environment| {
            environment.daemon.known_complete = 1;
            environment.operator.lists_in_use = if prefixes > 0 { List::DenyV4.bit() } else { 0 };
        })?;
        let began = Instant::now();
        for prefix in 0..prefixes {
            // Among the sources, spread over all their networks: a lookup goes down the whole trie.
            let network = (prefix * (MOST_PREFIXES / prefixes)) << 8;
            let address = Ipv4Addr::from(FIRST_SOURCE + network + 77).octets();
            path.list_ipv4(List::DenyV4, address, 32, 0)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        timers.push((prefixes, seconds, spoofed(path, timing::ALL_SOURCES, &[DROP])?));
    }
    let mut samples = vec![Vec::new(); timers.len()];
    for _ in 0..rounds {
        let floor = nanoseconds(floor(REPEAT)?);
        for (samples, (_, _, timer)) in samples.iter_mut().zip(&timers) {
            samples.push(nanoseconds(timer(REPEAT)?) - floor);
        }
    }
    let lists = timers.into_iter().zip(samples);
    Ok(lists
        .map(|((prefixes, seconds, _), samples)| (prefixes, seconds, middle(samples)))
        .collect())
}

/// Two CPUs on what they share, against one alone.
fn by_cpus(rounds: usize) -> Result<Vec<(&'static str, f64, f64)>> {
    // One source, whose packets are refused.
    let refusing = {
        let mut path = SUBJECT.path(Setup::default())?;
        let once = Ceiling { interval: Ticks(1 << 50), tolerance: Ticks(0) };
        path.set_interface(|interface| {
            interface.ceilings = [once; CLASS_SLOTS];
            interface.answers_nothing = 1;
        })?;
        // What is admitted goes to another tuple, so that the packet's own is no repetition.
        let mut other = cases::syn()?;
        let port = other.get_mut(34).context("a frame has a port")?;
        *port ^= 1;
        path.judge(&other)?;
        path
    };
    let admitting = {
        let mut path = SUBJECT.path(Setup { grant: 1 << 62, ..Setup::default() })?;
        path.set_interface(|interface| interface.ceilings = Interface::FREE.ceilings)?;
        path
    };
    let cases = [
        ("one line of buckets: refused SYNs of one source", refusing, 0),
        ("one grant: admitted SYNs of 2^28 sources", admitting, timing::ALL_SOURCES),
    ];
    let mut measured = Vec::new();
    for (name, path, bits) in &cases {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            times[0].extend(together(path, *bits, 1)?);
            times[1].extend(together(path, *bits, 2)?);
        }
        let [alone, both] = times.map(middle);
        measured.push((*name, alone, both));
    }
    Ok(measured)
}

/// Nanoseconds a packet on each of so many CPUs at once.
fn together(path: &DataPath, bits: u32, cpus: usize) -> Result<Vec<f64>> {
    let allowed = sched_getaffinity(None).context("cannot read the CPUs allowed")?;
    let chosen: Vec<_> =
        (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(cpus).collect();
    let start = &Barrier::new(chosen.len());
    let program = path.ingress().fd()?;
    thread::scope(|scope| {
        let threads: Vec<_> = chosen
            .into_iter()
            .map(|cpu| {
                scope.spawn(move || -> Result<f64> {
                    let mut only = CpuSet::new();
                    only.set(cpu);
                    sched_setaffinity(None, &only).context("cannot move to a CPU")?;
                    let timer =
                        Before::Spoof.timer_of(bits, program, &cases::syn()?, &[DROP, PASS])?;
                    timer(1000)?;
                    start.wait();
                    Ok(nanoseconds(timer(REPEAT)?))
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread of the bench panicked"))?);
        joined.collect()
    })
}

/// The daemon on a router whose table has so many entries.
fn daemon_with(ctguard: &Path, entries: u32) -> Result<(u32, f64, f64)> {
    let router = Namespace::create("router")?;
    router.ip(&[
        format!("link add {WAN} type veth peer name isp0"),
        format!("link set {WAN} up"),
        "link set isp0 up".to_owned(),
    ])?;
    table::track(&router)?;
    router.run(|| table::fill(entries))?;
    let orders = Orders {
        binary: ctguard.to_owned(),
        settings: Vec::new(),
        interfaces: vec![WAN],
        allowed: Vec::new(),
        regulars: Vec::new(),
    };
    let began = Instant::now();
    let standing = Guard::Ctguard(orders).start(&router, 0, &super::peers::log()?)?;
    let started = began.elapsed().as_secs_f64();
    let meter = CpuMeter::start(standing.daemon().map(Daemon::pid).context("a daemon")?)?;
    // Longer than the interval between two looks at the table.
    thread::sleep(Duration::from_secs(12));
    Ok((entries, meter.ratio()?, started))
}

impl Scaling {
    /// Whether every bar holds.
    pub(super) fn holds(&self) -> bool {
        self.lists.last().is_none_or(|(_, seconds, _)| *seconds <= LOAD_SECONDS)
            && self.list_adds() <= LIST_NANOSECONDS
    }

    /// Nanoseconds that the longest list adds.
    fn list_adds(&self) -> f64 {
        let [first, .., last] = &*self.lists else { return 0.0 };
        last.2 - first.2
    }

    /// Markdown tables.
    pub(super) fn tables(&self) -> String {
        let mut text = String::from(
            "| sources | refused by ctguard: ns over the floor | array bucket | LRU bucket |\n\
             | --- | --- | --- | --- |\n",
        );
        for (bits, [ctguard, array, lru]) in &self.sources {
            let _ = writeln!(text, "| 2^{bits} | {ctguard:.0} | {array:.0} | {lru:.0} |");
        }
        text += "\n| prefixes on the deny list | loaded in, s | refused, on no list: ns over the floor |\n\
                 | --- | --- | --- |\n";
        for (prefixes, seconds, time) in &self.lists {
            let _ = writeln!(text, "| {prefixes} | {seconds:.2} | {time:.0} |");
        }
        text += "\n| two CPUs share | one alone, ns/packet | each of both | × |\n\
                 | --- | --- | --- | --- |\n";
        for (name, alone, both) in &self.cpus {
            let _ = writeln!(text, "| {name} | {alone:.0} | {both:.0} | {:.1} |", both / alone);
        }
        text += "\n| entries in the table, no traffic | daemon, % of a CPU | ready after, s |\n\
                 | --- | --- | --- |\n";
        for (entries, ratio, started) in &self.daemon {
            let _ = writeln!(text, "| {entries} | {:.2} | {started:.2} |", 100.0 * ratio);
        }
        let missed = if self.holds() { "" } else { ": **missed**" };
        let (adds, seconds) = (self.list_adds(), self.lists.last().map_or(0.0, |last| last.1));
        let _ = writeln!(
            text,
            "\n- a million prefixes load in {seconds:.2} s, bar ≤ {LOAD_SECONDS}, and add {adds:.0} ns, \
             bar ≤ {LIST_NANOSECONDS}{missed}. They go into the map one by one; a list of the product \
             takes {}",
            ctguard_layout::ListEntry::CAPACITY
        );
        text
    }
}
