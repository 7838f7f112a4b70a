//! A whole lab: legitimate traffic alone, with a flood, and with a flood and a guard.

use std::{
    fs::{self, File},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    delay::ROUND_TRIP,
    exec,
    guard::{Guard, Orders},
    legit::{self, Day},
    netns,
    recipe::{self, FloodKind, Rate},
    report::{Machine, Options, Report, Run, SCHEMA_VERSION},
    router::{LAN, WAN},
    run::{self, RunPlan},
    script::Script,
    sysctl::{self, HostSysctl},
};

const LOCK: &str = "/run/ctguard-lab.lock";
/// How long a lab waits for another one on the machine: they share one sysctl.
const LOCK_PATIENCE: Duration = Duration::from_mins(10);

/// A daemon is watched for so long before there is any traffic, where its cost is asked for.
pub const IDLE: Duration = Duration::from_secs(10);

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
    /// It guards the router's inner interface as well.
    pub lan_guarded: bool,
    /// Addresses on its allow list.
    pub allowed: Vec<IpAddr>,
    /// Legitimate new flows a second from outside; as the table bears them where none are given.
    pub legitimate_per_second: Option<f64>,
    /// What happens to the guard in the flood.
    pub script: Script,
    /// Its daemon is watched for so long before there is any traffic.
    pub idle: Duration,
    /// New flows a second of one inside client, which then is alone.
    pub neighbour: Option<f64>,
    /// Some clients are regulars by the guard's record, and all that are known hold a connection.
    pub favours: bool,
    /// Connections of an office behind one far address.
    pub office: u32,
    /// What else a calm day brings.
    pub day: Option<Day>,
    /// So long after the flood begins, or the guard starts in its midst, service is settled.
    pub settles: Duration,
    /// How long packets travel between far hosts and the router, both ways together.
    pub round_trip: Duration,
    /// Buckets of the table's hash; as many as the table takes entries where none are given.
    pub buckets: Option<u64>,
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
            lan_guarded: false,
            allowed: Vec::new(),
            legitimate_per_second: None,
            script: Script::default(),
            idle: Duration::ZERO,
            neighbour: None,
            favours: true,
            office: 0,
            day: None,
            settles: Duration::from_secs(2),
            round_trip: ROUND_TRIP,
            buckets: None,
            log: PathBuf::from("target/lab/ctguard.log"),
            runs: Runs { baseline: true, unguarded: true, guarded: true, ideal: false },
        }
    }

    /// Legitimate new flows a second from outside.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let usual = || run::legitimate_per_second(self.table_max, self.seconds);
        self.legitimate_per_second.unwrap_or_else(usual)
    }

    /// Buckets of the table's hash: the kernel's own default is one for each entry. In a wider one
    /// a full table finds nothing to replace (`early_drop` looks into eight buckets).
    #[must_use]
    pub fn buckets(&self) -> u64 {
        self.buckets.unwrap_or(self.table_max)
    }

    fn orders(&self) -> Orders {
        let mut interfaces = vec![WAN];
        interfaces.extend(self.lan_guarded.then_some(LAN));
        Orders {
            binary: self.ctguard.clone(),
            settings: self.settings.clone(),
            interfaces,
            allowed: self.allowed.clone(),
            regulars: legit::regulars()
                .filter(|_| self.favours)
                .map(|source| self.family.far_client(source))
                .collect(),
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
    let buckets = options.buckets().to_string();
    let _hash = HostSysctl::set("net.netfilter.nf_conntrack_buckets", &buckets)?;

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
    cpus.enter_others()?;
    open_many_files()?;
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
            legitimate_per_second: options.per_second(),
            script: options.script,
            idle: options.idle,
            neighbour: options.neighbour,
            favours: options.favours,
            office: options.office,
            day: options.day,
            settles: options.settles,
            round_trip: options.round_trip,
            log: &options.log,
        };
        let run = run::run(&plan, cpus, interrupted).with_context(|| format!("the run {name}"))?;
        Ok(Some(run))
    };
    let ctguard = Guard::Ctguard(options.orders());
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

/// Flows that fail are open for seconds: a thousand a second need more files than usual.
fn open_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, most).context("cannot raise the limit of open files")
}

/// What a lab is asked for, as its report says it.
#[must_use]
pub fn described(options: &LabOptions) -> Options {
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
        legitimate_per_second: options.per_second(),
        round_trip_milliseconds: options.round_trip.as_secs_f64() * 1000.0,
        buckets: options.buckets(),
    }
}

/// SIGINT and SIGTERM set a flag while this lives.
pub(crate) struct Signals(Vec<signal_hook::SigId>);

impl Signals {
    pub(crate) fn register(flag: &Arc<AtomicBool>) -> Result<Self> {
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
