//! Where the chaos takes place: the lab's router with a second guarded interface, a flood, an
//! exchange, and a daemon that comes and goes.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    daemon::Daemon,
    exec,
    flood::Flood,
    object::{self, Attached, Program},
    product::{self, Answer, wait_for},
    recipe::{FloodKind, Rate},
    router::{ISP, Network, WAN},
    sysctl::HostSysctl,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    left::Before,
    watch::{Exchange, FillWatch, Promise},
};

/// The second guarded interface, and its other end.
pub(super) const DMZ: &str = "dmz0";
pub(super) const DMZ_OUTSIDE: &str = "dmzout0";
pub(super) const MAX: &str = "net.netfilter.nf_conntrack_max";
const ENTRIES: &str = "16384";
/// Fills the table in a second where nothing stands in its way, and leaves two processors time.
const RATE: u32 = 20_000;

// Dropped from above to below.
pub(super) struct Ground {
    pub(super) exchange: Exchange,
    pub(super) fill: FillWatch,
    flood: Flood,
    daemon: Option<Daemon>,
    _answers: Attached,
    pub(super) files: TempDir,
    pub(super) pins: PathBuf,
    before: Before,
    pub(super) network: Network,
    _max: HostSysctl,
}

impl Ground {
    pub(super) fn build() -> Result<Self> {
        let max = HostSysctl::set(MAX, ENTRIES)?;
        let network = Network::build()?;
        connect_dmz(&network, DMZ)?;
        let answers = network.internet.run(|| object::attach(Program::Nowhere, ISP))?;
        let before = Before::of(&network.router)?;
        let exchange = Exchange::open(&network)?;
        let fill = FillWatch::start(&network.router)?;
        let kind = FloodKind::SynSpoofed;
        let to = (Family::Ipv4, FLOOD_PORT);
        let cpus = Cpus::share_out()?;
        let flood = Flood::through(&network, kind, Rate::PerSecond(RATE), to, cpus)?;
        let pins = PathBuf::from(format!("/run/{}/guard", network.router.name()));
        let files = tempfile::tempdir()?;
        let mut ground = Self {
            exchange,
            fill,
            flood,
            daemon: None,
            _answers: answers,
            files,
            pins,
            before,
            network,
            _max: max,
        };
        ground.configure(5)?;
        ground.start()?;
        ground.settle()?;
        Ok(ground)
    }

    /// Writes a good configuration.
    pub(super) fn configure(&self, burst: u32) -> Result<()> {
        let text = format!("interfaces = [\"{WAN}\", \"{DMZ}\"]\n[source.udp]\nburst = {burst}\n");
        Ok(fs::write(self.file(), text)?)
    }

    /// The configuration.
    pub(super) fn file(&self) -> PathBuf {
        self.files.path().join("ctguard.toml")
    }

    fn log(&self) -> PathBuf {
        self.files.path().join("log")
    }

    /// What the daemons said last.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn run(&self) -> Result<Command> {
        let mut run = product::command_in(&self.network.router, &["run", "--on-exit", "keep"])?;
        run.arg("--config").arg(self.file());
        run.arg("--state").arg(self.files.path().join("state"));
        run.arg("--pin-path").arg(&self.pins);
        Ok(run)
    }

    /// Starts a daemon; it guards when this returns.
    pub(super) fn start(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(&self.run()?, &self.log())?);
        Ok(())
    }

    /// Starts a daemon that is killed before anybody knows how far it is.
    pub(super) fn start_in_vain(&self, lives: Duration) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log())?;
        let daemon = Daemon::start_into(&self.run()?, log.into())?;
        std::thread::sleep(lives);
        daemon.kill()
    }

    pub(super) fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), Daemon::kill)
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        let daemon = self.daemon.take().context("a daemon")?;
        let status = daemon.stop()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }

    pub(super) fn try_a_second(&self, pins: &str) -> Result<Answer> {
        let mut run = product::command_in(&self.network.router, &["run", "-i", WAN])?;
        run.args(["--pin-path", pins, "--mode", "native"]);
        run.arg("--state").arg(self.files.path().join("second"));
        product::answer(&mut run)
    }

    pub(super) fn ctguard(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = product::command_in(&self.network.router, arguments)?;
        product::answer(command.arg("--pin-path").arg(&self.pins))
    }

    pub(super) fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.ctguard(arguments)?;
        ensure!(answer.code == Some(0), "ctguard {} failed: {answer:?}", arguments.join(" "));
        Ok(answer.out)
    }

    pub(super) fn ip(&self, lines: &[&str]) -> Result<()> {
        self.network.router.ip(lines)
    }

    /// The route that goes with its device.
    pub(super) fn route(&self) -> Result<()> {
        self.ip(&["route replace default via 198.51.100.254"])
    }

    /// Makes the second guarded interface anew.
    pub(super) fn connect_dmz(&self, name: &str) -> Result<()> {
        connect_dmz(&self.network, name)
    }

    /// The XDP program on a device of the router.
    pub(super) fn xdp(&self, device: &str) -> Result<Option<u64>> {
        Ok(self.link(device)?.pointer("/0/xdp/prog/id").and_then(Value::as_u64))
    }

    /// The index of a device of the router.
    pub(super) fn index(&self, device: &str) -> Result<u64> {
        self.link(device)?.pointer("/0/ifindex").and_then(Value::as_u64).context("an index")
    }

    fn link(&self, device: &str) -> Result<Value> {
        let router = self.network.router.name();
        let mut show = Command::new("ip");
        let shown = exec::run(show.args(["-n", router, "-j", "link", "show", "dev", device]))?;
        serde_json::from_str(&shown).context("cannot read `ip -j`")
    }

    /// Waits until the daemon guards these interfaces, and the table is as promised.
    pub(super) fn wait_until_guarded(&self, names: &[&str]) -> Result<()> {
        let pid = self.daemon.as_ref().context("a daemon")?.pid();
        wait_for("the guard, back in control", || {
            let answer = self.ctguard(&["status", "--json"])?;
            // Somebody removed the pins a moment ago.
            if answer.code != Some(0) {
                return Ok(None);
            }
            let status: Value = serde_json::from_str(&answer.out)?;
            let is = |pointer: &str, value: Value| status.pointer(pointer) == Some(&value);
            let interfaces = status.pointer("/interfaces").and_then(Value::as_array);
            let attached = |name: &&str| {
                interfaces.into_iter().flatten().any(|it| {
                    it.get("name") == Some(&(*name).into())
                        && it.get("attached") == Some(&true.into())
                })
            };
            let fill = status.pointer("/conntrack/fill_ratio").and_then(Value::as_f64);
            let in_control = is("/daemon/pid", pid.into())
                && is("/grant/fallback_active", false.into())
                && is("/dry_run", false.into())
                && names.iter().all(attached)
                && fill.is_some_and(|fill| Promise::Guarded.is_kept(fill));
            Ok(in_control.then_some(()))
        })
        .with_context(|| format!("status: {:?}", self.ctguard(&["status"])))
    }

    /// After a disturbance, waits until all is as before it.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.wait_until_guarded(&[WAN, DMZ])?;
        ensure!(self.flood.is_running(), "the flood has ended");
        self.fill.promise(Promise::Guarded);
        self.exchange.ensure_answered()
    }

    /// Ends it all; fails when anything is left.
    pub(super) fn leave(mut self) -> Result<()> {
        self.stop()?;
        ensure!(self.xdp(WAN)?.is_some(), "the guard is kept");
        self.succeed(&["detach"])?;
        ensure!(!self.pins.exists(), "{} is still there", self.pins.display());
        let mount = self.pins.parent().context("a mount")?;
        ensure!(!mount.exists(), "{} is still there", mount.display());
        for device in [WAN, DMZ] {
            ensure!(self.xdp(device)?.is_none(), "{device} still has a program");
        }
        self.before.ensure_restored(&self.network.router)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.kill();
        if self.pins.exists() {
            let _ = self.succeed(&["detach"]);
        }
    }
}

fn connect_dmz(network: &Network, name: &str) -> Result<()> {
    let router = network.router.name();
    network
        .internet
        .ip(&[format!("link add {DMZ_OUTSIDE} type veth peer name {name} netns {router}")])?;
    network.internet.ip(&[format!("link set {DMZ_OUTSIDE} up")])?;
    network.router.ip(&[format!("link set {name} up")])
}
