//! A flood while an operator's commands are stopped, where it is worst: one cannot print, and the
//! lock for settings is held. Neither may cost the guard a tick that it needs.

use std::{
    fs,
    io::{PipeReader, Read as _, Write as _, pipe},
    os::unix::process::CommandExt as _,
    process::Child,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_kernel::{bpf::Pins, lock};
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    flood::Flood,
    guard::{Asker, Guard, Orders},
    lab, netns,
    object::{self, Program},
    pinned::Pinned,
    product::{self, wait_for},
    recipe::{FloodKind, Rate},
    report::ratio,
    require,
    router::{ISP, Network, WAN},
    sysctl::{self, HostSysctl},
    table::{self, Watch},
    wan,
};
use rustix::process::{Pid, Signal, kill_process};

const TABLE_MAX: u64 = 16_384;
const TARGET: f64 = 0.85;
/// Above the target by so much of the table at most.
const OVER_TARGET: f64 = 0.02;
const PER_SECOND: u32 = 500_000;
const FLOOD: Duration = Duration::from_secs(10);
/// Longer than anything that the daemon does each second could wait for a lock.
const SECONDS_OF_TICKS: u32 = 4;

/// A pipe's capacity, `pipe(7)`.
const PIPE_BYTES: usize = 65_536;
const ALLOWED: &str = "192.0.2.7";

/// Fails when a command that is stopped while it prints, or while it holds the lock for settings,
/// stops the ticks: the fallback takes over, or the table passes its target.
#[test]
fn a_flood_while_set_and_allow_are_stopped_passes_no_target() -> Result<()> {
    let test = "a_flood_while_set_and_allow_are_stopped_passes_no_target";
    if !require::root(test) || !require::release_binary(test) || !require::two_cpus(test) {
        return Ok(());
    }
    let _lab = lab::lock(&|text| println!("{text}"), &AtomicBool::new(false))?;
    netns::remove_orphans();
    sysctl::restore_orphans();
    let _max = HostSysctl::set("net.netfilter.nf_conntrack_max", &TABLE_MAX.to_string())?;
    // A thread of its own, so that the caller keeps its CPUs.
    thread::scope(|scope| scope.spawn(flood_while_stopped).join().expect("no panic"))
}

fn flood_while_stopped() -> Result<()> {
    let cpus = Cpus::share_out()?;
    cpus.enter_others()?;
    let network = Network::build()?;
    // What a guard sends back by XDP_TX arrives only where the peer has a program, too.
    let _receiver = network.internet.run(|| object::attach(Program::Nowhere, ISP))?;
    let directory = std::env::temp_dir().join("ctguard-stopped");
    fs::create_dir_all(&directory)?;
    let log = directory.join("ctguard.log");
    let guard = Guard::Ctguard(Orders::on_wan()?).start(&network.router, FLOOD_PORT, &log)?;
    let asker = guard.asker().context("a guard answers")?;
    let pins = network.router.run(|| Ok(Pins::of_this_namespace()?))?;
    let pinned = Pinned::open(pins.path())?;

    let watch = Watch::start(&network.router, Instant::now())?;
    let counted = wan::read(&network)?;
    let to = (Family::Ipv4, FLOOD_PORT);
    let rate = Rate::PerSecond(PER_SECOND);
    let flood = Flood::through(&network, FloodKind::SynSpoofed, rate, to, cpus)?;
    let began = Instant::now();

    let set = Stopped::start(&network, &["set", "floor.tcp.rate=3"])?;
    let allow = Stopped::start(&network, &["allow", "add", ALLOWED])?;
    let work = || {
        let done = asker.ask(&["get", "floor.tcp.rate"])?.trim() == "3/s"
            && asker.ask(&["allow", "list"])?.contains(ALLOWED);
        Ok(done.then_some(()))
    };
    wait_for("the commands' work", work)?;
    // Neither takes it twice: both are where they print, and nobody reads.
    let held = wait_for("the lock", || Ok(lock::try_for_writing(pins.path())?))?;
    set.stop(Signal::TSTP)?;
    allow.stop(Signal::STOP)?;

    // The daemon follows the first each second, and looks at the interfaces for the second.
    network.router.sysctl(&[("net.netfilter.nf_conntrack_udp_timeout", "17")])?;
    network.router.ip(&[format!("link set {WAN} promisc on")])?;
    let first = pinned.heartbeat();
    let mut longest = 0;
    let mut last = first;
    let enough = u64::from(SECONDS_OF_TICKS * pinned.jiffies_per_second());
    wait_for("ticks while commands are stopped", || {
        ensure_steered(&asker)?;
        let heartbeat = pinned.heartbeat();
        longest = longest.max(heartbeat - last);
        last = heartbeat;
        Ok((heartbeat >= first + enough && began.elapsed() >= FLOOD).then_some(()))
    })?;
    let flooded = flood.stop()?;
    let counted = wan::read(&network)?.since(counted);
    let kernel = table::kernel_counters(&network.router)?;
    let series = watch.stop()?;
    let peak = series.iter().map(|point| point.count).max().unwrap_or_default();
    let fill = ratio(peak, TABLE_MAX);
    println!(
        "{} frames in {:?}, {} lost in the queue, {} dropped and {} answered in XDP; while two \
         commands were stopped: {} jiffies of ticks, {longest} at most between two looks; fill \
         {:.1} % at most; {kernel:?}",
        flooded.offered,
        flooded.lasted,
        counted.lost_in_queue,
        counted.dropped_in_xdp,
        counted.answered_in_xdp,
        last - first,
        fill * 100.0,
    );
    ensure!(fill <= TARGET + OVER_TARGET, "the table was {:.1} % full", fill * 100.0);
    ensure!(kernel.drop == 0, "the kernel dropped for a full table: {kernel:?}");

    ensure!(set.is_stopped()? && allow.is_stopped()?, "both were stopped throughout");
    drop(held);
    set.go_on()?;
    allow.go_on()?;
    ensure_steered(&asker)
}

fn ensure_steered(asker: &Asker) -> Result<()> {
    let status = asker.status()?;
    ensure!(
        status.pointer("/grant/fallback_active") == Some(&false.into()),
        "the fallback took over: {status}"
    );
    Ok(())
}

/// A command whose standard output is a full pipe; killed when dropped.
struct Stopped {
    child: Child,
    reader: PipeReader,
}

impl Stopped {
    fn start(network: &Network, arguments: &[&str]) -> Result<Self> {
        let (reader, mut full) = pipe()?;
        full.write_all(&vec![b'x'; PIPE_BYTES])?;
        let mut command = product::command_in(&network.router, arguments)?;
        // Ctrl-Z stops nobody in a process group that no shell could let go on.
        let child = command.process_group(0).stdout(full).spawn()?;
        Ok(Self { child, reader })
    }

    fn stop(&self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        wait_for("a command that is stopped", || Ok(self.is_stopped()?.then_some(())))
    }

    /// By the state of `proc_pid_stat(5)`.
    fn is_stopped(&self) -> Result<bool> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T')))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Lets it go on and print; it must succeed.
    fn go_on(mut self) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.reader.read_exact(&mut vec![0; PIPE_BYTES])?;
        ensure!(wait_for("the command's end", || Ok(self.child.try_wait()?))?.success());
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
