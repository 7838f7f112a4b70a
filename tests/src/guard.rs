//! What stands on the guarded interface: nothing, ctguard, or the guard that cannot be beaten.

use std::{
    fs::File,
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
    Ctguard {
        /// Its binary.
        binary: PathBuf,
        /// `KEY=VALUE` settings for `ctguard run --set`.
        settings: Vec<String>,
    },
    /// A program that drops exactly the flood, by its port.
    Ideal,
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
            Self::Ctguard { binary, settings } => {
                Ok(Standing::Ctguard(Daemon::start(binary, settings, router.clone(), log)?))
            }
        }
    }
}

impl Standing {
    /// What `ctguard status --json` says, if it is ctguard.
    pub fn status(&self) -> Result<Option<Value>> {
        match self {
            Self::None | Self::Ideal(_) => Ok(None),
            Self::Ctguard(daemon) => daemon.status().map(Some),
        }
    }

    /// The guard's daemon, if it is ctguard.
    #[must_use]
    pub fn daemon(&self) -> Option<&Daemon> {
        match self {
            Self::None | Self::Ideal(_) => None,
            Self::Ctguard(daemon) => Some(daemon),
        }
    }
}

/// `ctguard run` in the router's namespace.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    binary: PathBuf,
    router: Handle,
}

impl Daemon {
    fn start(binary: &Path, settings: &[String], router: Handle, log: &Path) -> Result<Self> {
        if !binary.is_file() {
            bail!("{} does not exist; cargo build --release", binary.display());
        }
        let binary = binary.canonicalize().context("cannot find ctguard")?;
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        // A lab that is killed takes its ctguard along.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]);
        let inside = router.command(&binary.to_string_lossy());
        command.arg(inside.get_program()).args(inside.get_args()).args(["run", "-i", WAN]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let errors = output.try_clone().context("cannot copy a file")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().context("cannot start ctguard")?;
        let mut daemon = Self { child, binary, router };
        daemon.wait_until_ready(log)?;
        Ok(daemon)
    }

    /// Its process: `setpriv` and `nsenter` become the program that they start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `ctguard status --json`.
    pub fn status(&self) -> Result<Value> {
        let mut command = self.router.command(&self.binary.to_string_lossy());
        let text = exec::run(command.args(["status", "--json"]))?;
        serde_json::from_str(&text).context("`ctguard status --json` is not JSON")
    }

    /// Runs another command of ctguard in the same namespace and returns what it wrote.
    pub fn ctguard(&self, arguments: &[&str]) -> Result<String> {
        exec::run(self.router.command(&self.binary.to_string_lossy()).args(arguments))
    }

    fn wait_until_ready(&mut self, log: &Path) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().context("cannot wait for ctguard")? {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("ctguard ended at once ({status}): {}", said.trim());
            }
            let running = |status: Value| status.pointer("/daemon/running") == Some(&true.into());
            if self.status().is_ok_and(running) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        bail!("ctguard was not ready within {PATIENCE:?}; see {}", log.display())
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

impl Drop for Daemon {
    fn drop(&mut self) {
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
