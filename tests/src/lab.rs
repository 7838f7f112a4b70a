//! A whole lab: legitimate traffic alone, with a flood, and with a flood and a guard.

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    exec,
    guard::Guard,
    netns,
    recipe::{self, FloodKind, Rate},
    report::{Machine, Options, Report, Run, SCHEMA_VERSION},
    run::{self, RunPlan},
    sysctl::{self, HostSysctl},
};

const LOCK: &str = "/run/ctguard-lab.lock";
/// How long a lab waits for another one on the machine: they share one sysctl.
const LOCK_PATIENCE: Duration = Duration::from_mins(10);

/// Which runs a lab makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four runs, each made or not")]
pub struct Runs {
    /// Legitimate traffic alone.
    pub baseline: bool,
    /// With the flood, without a guard.
    pub unguarded: bool,
    /// With the flood, with ctguard.
    pub guarded: bool,
    /// With the flood and a program that drops exactly it.
    pub ideal: bool,
}

/// What a lab shall do.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// The kind of flood.
    pub flood: FloodKind,
    /// Its packets a second.
    pub rate: Rate,
    /// Seconds it lasts.
    pub seconds: u32,
    /// Entries that the table takes.
    pub table_max: u64,
    /// The flood goes at a port that the router's own rules drop.
    pub port_dropped: bool,
    /// The protocol of all traffic.
    pub family: Family,
    /// The `ctguard` to try.
    pub ctguard: PathBuf,
    /// `KEY=VALUE` settings for it.
    pub settings: Vec<String>,
    /// Where ctguard's output goes.
    pub log: PathBuf,
    /// The runs to make.
    pub runs: Runs,
}

impl LabOptions {
    /// The defaults of the command line, around one kind of flood.
    #[must_use]
    pub fn new(flood: FloodKind) -> Self {
        Self {
            flood,
            rate: flood.usual_rate(),
            seconds: 20,
            table_max: 16_384,
            port_dropped: false,
            family: flood.only_family().unwrap_or(Family::Ipv4),
            ctguard: PathBuf::from("target/release/ctguard"),
            settings: Vec::new(),
            log: PathBuf::from("target/lab/ctguard.log"),
            runs: Runs { baseline: true, unguarded: true, guarded: true, ideal: false },
        }
    }
}

/// Makes all runs; `progress` is told in a few words what begins.
///
/// Everything the lab makes or changes on the host is gone or restored when this returns, on a
/// signal (SIGINT, SIGTERM) as well; what a killed lab left is put right first.
pub fn run(options: &LabOptions, progress: &(dyn Fn(&str) + Sync)) -> Result<Report> {
    check(options)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let _signals = Signals::register(&interrupted)?;
    let _lock = lock(progress, &interrupted)?;
    netns::remove_orphans();
    sysctl::restore_orphans();
    let table_max = options.table_max.to_string();
    let _table = HostSysctl::set("net.netfilter.nf_conntrack_max", &table_max)?;

    // A thread of its own, so that the caller keeps its CPUs.
    thread::scope(|scope| {
        let lab = scope.spawn(|| make_runs(options, progress, &interrupted));
        lab.join().map_err(|_| anyhow!("the lab's thread panicked"))?
    })
}

fn check(options: &LabOptions) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes network namespaces and loads eBPF: run it as root");
    }
    exec::require_tools()?;
    if options.runs.guarded && !options.ctguard.is_file() {
        bail!("{} does not exist: cargo build --release", options.ctguard.display());
    }
    recipe::check_family(options.flood, options.family)?;
    if options.port_dropped && options.flood.port(true).is_none() {
        bail!("a flood of {} has no port that rules could drop", options.flood);
    }
    if options.runs.ideal && !options.flood.shows_port() {
        bail!("the ideal guard knows a flood by its port, which {} hides", options.flood);
    }
    if options.seconds == 0 {
        bail!("a flood of 0 seconds shows nothing: give at least 1");
    }
    if options.table_max < 1024 {
        bail!("a table of {} is too small for the traffic: give at least 1024", options.table_max);
    }
    let log = options.log.parent().context("the log needs a directory")?;
    fs::create_dir_all(log).with_context(|| format!("cannot make {}", log.display()))
}

fn make_runs(
    options: &LabOptions,
    progress: &(dyn Fn(&str) + Sync),
    interrupted: &AtomicBool,
) -> Result<Report> {
    let cpus = Cpus::share_out()?;
    cpus.leave_flood()?;
    let make = |wanted: bool, name: &str, guard: Guard, flood: bool| -> Result<Option<Run>> {
        if !wanted {
            return Ok(None);
        }
        progress(name);
        let plan = RunPlan {
            guard,
            flood: flood.then_some((options.flood, options.rate)),
            family: options.family,
            port: options.flood.port(options.port_dropped).unwrap_or(FLOOD_PORT),
            seconds: options.seconds,
            table_max: options.table_max,
            log: &options.log,
        };
        let run = run::run(&plan, cpus, interrupted).with_context(|| format!("the run {name}"))?;
        Ok(Some(run))
    };
    let ctguard =
        Guard::Ctguard { binary: options.ctguard.clone(), settings: options.settings.clone() };
    let runs = options.runs;
    Ok(Report {
        schema_version: SCHEMA_VERSION,
        options: described(options),
        machine: Machine {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpus: cpus.count(),
        },
        baseline: make(runs.baseline, "without a flood", Guard::None, false)?,
        unguarded: make(runs.unguarded, "flooded, unguarded", Guard::None, true)?,
        guarded: make(runs.guarded, "flooded, with ctguard", ctguard, true)?,
        ideal: make(runs.ideal, "flooded, with the ideal guard", Guard::Ideal, true)?,
    })
}

fn described(options: &LabOptions) -> Options {
    Options {
        flood: options.flood.to_string(),
        seconds: options.seconds,
        flood_packets_per_second: match options.rate {
            Rate::Full => None,
            Rate::PerSecond(rate) => Some(rate),
        },
        table_max: options.table_max,
        port_dropped: options.port_dropped,
        family: match options.family {
            Family::Ipv4 => "ipv4".to_owned(),
            Family::Ipv6 => "ipv6".to_owned(),
        },
        legitimate_per_second: run::legitimate_per_second(options.table_max, options.seconds),
    }
}

/// SIGINT and SIGTERM set a flag while this lives.
struct Signals(Vec<signal_hook::SigId>);

impl Signals {
    fn register(flag: &Arc<AtomicBool>) -> Result<Self> {
        let mut registered = Self(Vec::new());
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let id = signal_hook::flag::register(signal, Arc::clone(flag));
            registered.0.push(id.context("cannot handle signals")?);
        }
        Ok(registered)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.0.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// One lab at a time on a machine: they share one sysctl, and its cores.
pub fn lock(progress: &dyn Fn(&str), interrupted: &AtomicBool) -> Result<File> {
    let file = File::create(LOCK).with_context(|| format!("cannot make {LOCK}"))?;
    let began = Instant::now();
    let mut told = false;
    while file.try_lock().is_err() {
        if began.elapsed() > LOCK_PATIENCE || interrupted.load(Ordering::Relaxed) {
            bail!("another lab holds {LOCK}");
        }
        if !told {
            progress("waiting for another lab on this machine");
            told = true;
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(file)
}
