//! What stands on the guarded interface: nothing, ctguard, or the guard that cannot be beaten.

use std::{
    ffi::OsString,
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    exec,
    netns::Handle,
    object::{self, Attached, Program},
    regulars,
    router::WAN,
};

/// How long ctguard may take to be ready, or to leave.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// What a run puts on the guarded interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// ctguard.
    Ctguard(Orders),
    /// A program that drops exactly the flood, by its port.
    Ideal,
}

/// How ctguard is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// Its binary.
    pub binary: PathBuf,
    /// `KEY=VALUE` settings for `ctguard run --set`.
    pub settings: Vec<String>,
    /// Interfaces of the router that it guards.
    pub interfaces: Vec<&'static str>,
    /// Addresses on its allow list.
    pub allowed: Vec<IpAddr>,
    /// Addresses that it knows for regulars.
    pub regulars: Vec<IpAddr>,
}

/// A guard at its post; leaves when dropped.
#[derive(Debug)]
pub enum Standing {
    /// Nothing there.
    None,
    /// A running ctguard.
    Ctguard(Daemon),
    /// A program of the lab.
    Ideal(Attached),
}

impl Guard {
    /// Puts the guard on the router's outer interface; ready when this returns.
    pub fn start(&self, router: &Handle, flood_port: u16, log: &Path) -> Result<Standing> {
        match self {
            Self::None => Ok(Standing::None),
            Self::Ideal => {
                let program = Program::DropPort(flood_port);
                Ok(Standing::Ideal(router.run(|| object::attach(program, WAN))?))
            }
            Self::Ctguard(orders) => {
                Ok(Standing::Ctguard(Daemon::start(orders, router.clone(), log)?))
            }
        }
    }

    /// Whether it guards the interface.
    #[must_use]
    pub fn covers(&self, interface: &str) -> bool {
        match self {
            Self::None => false,
            Self::Ideal => interface == WAN,
            Self::Ctguard(orders) => orders.interfaces.contains(&interface),
        }
    }
}

impl Standing {
    /// What `ctguard status --json` says, if it is ctguard.
    pub fn status(&self) -> Result<Option<Value>> {
        self.daemon().map(Daemon::status).transpose()
    }

    /// The guard's daemon, if it is ctguard.
    #[must_use]
    pub fn daemon(&self) -> Option<&Daemon> {
        match self {
            Self::None | Self::Ideal(_) => None,
            Self::Ctguard(daemon) => Some(daemon),
        }
    }

    /// Kills the daemon, if it is ctguard; what is pinned guards on.
    pub fn kill(&mut self) -> Result<()> {
        match self {
            Self::None | Self::Ideal(_) => Ok(()),
            Self::Ctguard(daemon) => daemon.kill(),
        }
    }

    /// Starts a daemon in place of one that was killed, if it is ctguard.
    pub fn start_again(&mut self) -> Result<()> {
        match self {
            Self::None | Self::Ideal(_) => Ok(()),
            Self::Ctguard(daemon) => daemon.start_again(),
        }
    }
}

/// Commands of ctguard in the router's namespace.
#[derive(Clone, Debug)]
pub struct Asker {
    binary: PathBuf,
    router: Handle,
}

impl Asker {
    /// `ctguard status --json`.
    pub fn status(&self) -> Result<Value> {
        let text = self.ask(&["status", "--json"])?;
        serde_json::from_str(&text).context("`ctguard status --json` is not JSON")
    }

    /// Runs a command of ctguard and returns what it wrote.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        exec::run(self.router.command(&self.binary.to_string_lossy()).args(arguments))
    }
}

/// `ctguard run` in the router's namespace.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    asker: Asker,
    arguments: Vec<OsString>,
    log: PathBuf,
    killed: bool,
}

impl Daemon {
    fn start(orders: &Orders, router: Handle, log: &Path) -> Result<Self> {
        let binary = &orders.binary;
        if !binary.is_file() {
            bail!("{} does not exist; cargo build --release", binary.display());
        }
        let binary = binary.canonicalize().context("cannot find ctguard")?;
        let asker = Asker { binary, router };
        let arguments = arguments(orders, &asker, log)?;
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = spawn(&asker, &arguments, log)?;
        let mut daemon = Self { child, asker, arguments, log: log.to_owned(), killed: false };
        daemon.wait_until_ready()?;
        for address in &orders.allowed {
            daemon.ctguard(&["allow", "add", &address.to_string()])?;
        }
        Ok(daemon)
    }

    /// Its process: `setpriv` and `nsenter` become the program that they start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `ctguard status --json`.
    pub fn status(&self) -> Result<Value> {
        self.asker.status()
    }

    /// Who asks it from other threads.
    #[must_use]
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Runs another command of ctguard in the same namespace and returns what it wrote.
    pub fn ctguard(&self, arguments: &[&str]) -> Result<String> {
        self.asker.ask(arguments)
    }

    /// Ends it as a crash would.
    fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL);
        self.child.wait().context("cannot wait for ctguard")?;
        self.killed = true;
        Ok(())
    }

    fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.asker, &self.arguments, &self.log)?;
        self.killed = false;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let log = self.log.display().to_string();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().context("cannot wait for ctguard")? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("ctguard ended at once ({status}): {}", said.trim());
            }
            let pid = Value::from(self.child.id());
            let running = |status: Value| {
                status.pointer("/daemon/running") == Some(&true.into())
                    && status.pointer("/daemon/pid").is_none_or(|found| *found == pid)
            };
            if self.status().is_ok_and(running) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        bail!("ctguard was not ready within {PATIENCE:?}; see {log}")
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }
}

/// The arguments of `ctguard`; what it starts with lies beside its log.
fn arguments(orders: &Orders, asker: &Asker, log: &Path) -> Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = vec!["run".into()];
    for interface in &orders.interfaces {
        arguments.extend(["-i".into(), interface.into()]);
    }
    for setting in &orders.settings {
        arguments.extend(["--set".into(), setting.into()]);
    }
    // A ctguard that remembers nothing can be tried as well.
    if asker.ask(&["run", "--help"])?.contains("--state") {
        let directory = log.with_file_name("state");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot empty {}", directory.display()))?;
        }
        regulars::write(&directory, &asker.router, &orders.regulars)?;
        let directory = directory.canonicalize().context("cannot find the state's directory")?;
        arguments.extend(["--state".into(), directory.into()]);
    }
    Ok(arguments)
}

fn spawn(asker: &Asker, arguments: &[OsString], log: &Path) -> Result<Child> {
    let output = File::options().append(true).open(log);
    let output = output.with_context(|| format!("cannot write {}", log.display()))?;
    // A lab that is killed takes its ctguard along.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]);
    let inside = asker.router.command(&asker.binary.to_string_lossy());
    command.arg(inside.get_program()).args(inside.get_args()).args(arguments);
    let errors = output.try_clone().context("cannot copy a file")?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    command.spawn().context("cannot start ctguard")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.killed {
            let _ = self.ctguard(&["detach"]);
            return;
        }
        if self.has_ended() {
            return;
        }
        self.signal(Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(POLL);
        }
        eprintln!("ctguard-lab: ctguard does not end on SIGTERM; it is killed and detached");
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        let _ = self.ctguard(&["detach"]);
    }
}
