//! The built `ctguard` at work in a namespace: a guarded interface, the outside it faces, what the
//! command line answers, and what is left in the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::links::{FdLink, LinkInfo, PinnedLink};
use serde_json::Value;

use crate::{
    daemon::{self, Daemon},
    exec,
    netns::{Handle, Namespace},
    wire::Wire,
};

/// The guarded interface.
pub const WAN: &str = "wan0";
/// Its other end.
pub const OUTSIDE: &str = "out0";
/// No state takes longer to come.
pub const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// Sites of this process so far: each has names of its own.
static SITES: AtomicU32 = AtomicU32::new(0);
static ALONE: Mutex<()> = Mutex::new(());

/// A guarded namespace and the outside of it; all of it goes when dropped, a guard included.
#[derive(Debug)]
pub struct Site {
    binary: PathBuf,
    outside: Namespace,
    guarded: Namespace,
    pins: PathBuf,
    // Dropped last.
    _alone: Option<MutexGuard<'static, ()>>,
}

/// What a command answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit status; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub errors: String,
}

/// Polls until `state` is there; fails with `what` when it does not come.
pub fn wait_for<T>(what: &str, mut state: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(reached) = state().with_context(|| format!("waiting for {what}"))? {
            return Ok(reached);
        }
        ensure!(began.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(POLL);
    }
}

/// The `ctguard` under test: the one that `CTGUARD_BINARY` names, else the release binary, which is
/// what is shipped.
pub fn binary() -> Result<PathBuf> {
    if let Some(chosen) = std::env::var_os("CTGUARD_BINARY") {
        return Ok(chosen.into());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/ctguard");
    path.canonicalize().context("no target/release/ctguard; cargo build --release")
}

/// `ctguard` in a namespace.
pub fn command_in(namespace: &Handle, arguments: &[&str]) -> Result<Command> {
    let mut command = namespace.command(&binary()?.to_string_lossy());
    command.args(arguments);
    Ok(command)
}

impl Site {
    /// Two namespaces with a link between them, nothing guarded yet. One site stands at a time,
    /// for all share the file system that guards are pinned in.
    pub fn build() -> Result<Self> {
        exec::require_tools()?;
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self::build_with(Some(alone))
    }

    /// Another site beside this one.
    pub fn neighbour(&self) -> Result<Self> {
        Self::build_with(None)
    }

    fn build_with(alone: Option<MutexGuard<'static, ()>>) -> Result<Self> {
        let binary = binary()?;
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let outside = Namespace::create(&format!("outside{number}"))?;
        let guarded = Namespace::create(&format!("guarded{number}"))?;
        let pins = daemon::pins(&guarded)?;
        let site = Self { binary, outside, guarded, pins, _alone: alone };
        site.connect(OUTSIDE, WAN)?;
        Ok(site)
    }

    /// Another link: `outer` outside, `inner` in the guarded namespace, both up.
    pub fn connect(&self, outer: &str, inner: &str) -> Result<()> {
        let name = self.guarded.name();
        self.outside.ip(&[format!("link add {outer} type veth peer name {inner} netns {name}")])?;
        self.outside.ip(&[format!("link set {outer} up")])?;
        self.guarded.ip(&[format!("link set {inner} up")])
    }

    /// The guarded namespace.
    #[must_use]
    pub fn guarded(&self) -> &Handle {
        &self.guarded
    }

    /// The outside.
    #[must_use]
    pub fn outside(&self) -> &Handle {
        &self.outside
    }

    /// Where the guard is pinned by default.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The other end of the guarded interface, to send frames from.
    pub fn wire(&self) -> Result<Wire> {
        Wire::open(&self.outside, OUTSIDE)
    }

    /// `ctguard` in the guarded namespace.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.guarded.command(&self.binary.to_string_lossy());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs `ctguard` to its end.
    pub fn ctguard(&self, arguments: &[&str]) -> Result<Answer> {
        answer(&mut self.command(arguments))
    }

    /// Runs `ctguard`, which must succeed, and returns what it wrote.
    pub fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.ctguard(arguments)?;
        ensure!(answer.code == Some(0), "ctguard {} failed: {answer:?}", arguments.join(" "));
        Ok(answer.out)
    }

    /// `ctguard status --json`.
    pub fn status(&self) -> Result<Value> {
        let text = self.succeed(&["status", "--json"])?;
        serde_json::from_str(&text).context("`ctguard status --json` is not JSON")
    }

    /// A number in the status, by its JSON pointer.
    pub fn number(&self, pointer: &str) -> Result<u64> {
        let status = self.status()?;
        let number = status.pointer(pointer).and_then(Value::as_u64);
        number.with_context(|| format!("no number at {pointer} of {status}"))
    }

    /// Starts `ctguard run -i wan0`; it guards when this returns.
    pub fn guard(&self) -> Result<Daemon> {
        self.start(&["run", "-i", WAN])
    }

    /// Starts `ctguard run` with these arguments; it guards when this returns.
    pub fn start(&self, arguments: &[&str]) -> Result<Daemon> {
        self.start_by(self.command(arguments))
    }

    /// Starts `ctguard run` by a command that puts it into the guarded namespace. What it remembers
    /// and logs goes with the site.
    pub fn start_by(&self, command: Command) -> Result<Daemon> {
        Daemon::start(&self.remembering(command), &self.log())
    }

    /// Starts `ctguard run` with its standard error elsewhere; it may not guard yet.
    pub fn start_into(&self, arguments: &[&str], errors: Stdio) -> Result<Daemon> {
        Daemon::start_into(&self.remembering(self.command(arguments)), errors)
    }

    /// The command with a directory for what it remembers, which goes with the site.
    fn remembering(&self, mut command: Command) -> Command {
        command.arg("--state").arg(self.state());
        command
    }

    /// The identifier of the XDP program on a device of the guarded namespace.
    pub fn xdp(&self, device: &str) -> Result<Option<u64>> {
        let link = self.link(device)?;
        Ok(link.pointer("/0/xdp/prog/id").and_then(Value::as_u64))
    }

    /// The index of a device of the guarded namespace.
    pub fn index(&self, device: &str) -> Result<u64> {
        let link = self.link(device)?;
        link.pointer("/0/ifindex").and_then(Value::as_u64).context("a device has an index")
    }

    /// What the pinned links of a device tell of themselves: XDP, then TCX.
    pub fn links(&self, device: &str) -> Result<[LinkInfo; 2]> {
        let index = self.index(device)?;
        let info = |kind: &str| -> Result<LinkInfo> {
            let path = self.pins.join(format!("{kind}_{index}"));
            let pinned = PinnedLink::from_pin(&path)
                .with_context(|| format!("no pinned link {}", path.display()))?;
            Ok(FdLink::from(pinned).info()?)
        };
        Ok([info("xdp")?, info("tcx")?])
    }

    /// The queueing disciplines of a device of the guarded namespace, as `tc` shows them.
    pub fn qdiscs(&self, device: &str) -> Result<String> {
        exec::run(self.guarded.command("tc").args(["qdisc", "show", "dev", device]))
    }

    /// Fails when the guard left anything behind.
    pub fn ensure_gone(&self) -> Result<()> {
        ensure!(!self.pins.exists(), "{} is still there", self.pins.display());
        ensure!(self.xdp(WAN)?.is_none(), "{WAN} still has a program");
        let filters = exec::run(self.guarded.command("tc").args(["qdisc", "show"]))?;
        ensure!(!filters.contains("clsact"), "a clsact is left: {filters}");
        for lock in [self.run_file("lock"), self.writing_lock()] {
            ensure!(!lock.exists(), "{} is left", lock.display());
        }
        Ok(())
    }

    fn link(&self, device: &str) -> Result<Value> {
        let shown = exec::run(Command::new("ip").args([
            "-n",
            self.guarded.name(),
            "-j",
            "link",
            "show",
            "dev",
            device,
        ]))?;
        serde_json::from_str(&shown).context("cannot read `ip -j`")
    }

    fn log(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}-ctguard.log", self.guarded.name()))
    }

    /// The directory of what the daemon remembers.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}-ctguard", self.guarded.name()))
    }

    /// The lock that only one command or daemon at a time may change the settings with.
    #[must_use]
    pub fn writing_lock(&self) -> PathBuf {
        self.run_file("writing")
    }

    /// A lock, record or log of the guard, as it lies beside the pins.
    #[must_use]
    pub fn run_file(&self, name: &str) -> PathBuf {
        daemon::run_file(&self.pins, name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.pins.exists()
            && let Err(error) = self.succeed(&["detach"])
        {
            eprintln!("cannot remove {}: {error:#}", self.pins.display());
        }
        daemon::remove_files(&self.pins);
        let _ = fs::remove_file(self.log());
        let _ = fs::remove_dir_all(self.state());
    }
}

/// Runs a command to its end.
pub fn answer(command: &mut Command) -> Result<Answer> {
    let output = command.output().context("cannot run ctguard")?;
    Ok(Answer {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Answer {
    /// The one line on standard error of a command that refused with `code` and wrote nothing
    /// else.
    pub fn refusal(&self, code: i32) -> Result<&str> {
        ensure!(self.code == Some(code), "exit status {code} expected: {self:?}");
        ensure!(self.out.is_empty(), "nothing on standard output expected: {self:?}");
        let line = self.errors.strip_suffix('\n').unwrap_or(&self.errors);
        ensure!(!line.contains('\n') && !line.is_empty(), "one line expected: {self:?}");
        line.strip_prefix("ctguard: ").with_context(|| format!("it tells who speaks: {self:?}"))
    }
}
