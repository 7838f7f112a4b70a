//! A `ctguard run` that a test or the lab starts, and ends in one way or another.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{netns::Handle, product::wait_for};

/// A running `ctguard run`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// Where its part of the log begins: another may have written there before.
    log_start: usize,
}

impl Daemon {
    /// Starts `command`, whose output goes to `log`, and waits until it says that it guards.
    pub fn start(command: &Command, log: &Path) -> Result<Self> {
        let opened = fs::File::options().create(true).append(true).open(log);
        let errors = opened.with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = usize::try_from(errors.metadata()?.len())?;
        let mut daemon = Self::start_into(command, errors.into())?;
        (daemon.log, daemon.log_start) = (log.to_owned(), log_start);
        wait_for("the daemon", || daemon.is_ready())?;
        Ok(daemon)
    }

    /// Starts `command`, whose standard error goes elsewhere; it may not guard yet.
    pub fn start_into(command: &Command, errors: Stdio) -> Result<Self> {
        // A test that is killed takes its daemon along, which then takes its guard along.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "TERM", "--"]);
        tied.arg(command.get_program()).args(command.get_args());
        // The veth of a test stands for a network card, which runs the program in its driver.
        if !command.get_args().any(|argument| argument == "--mode") {
            tied.args(["--mode", "native"]);
        }
        tied.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = tied.spawn().context("cannot start ctguard")?;
        Ok(Self { child, log: PathBuf::new(), log_start: 0 })
    }

    /// Its process: `setpriv` and `nsenter` become the program that they start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> Result<String> {
        let log = fs::read_to_string(&self.log).context("cannot read the daemon's log")?;
        Ok(log.get(self.log_start..).unwrap_or_default().to_owned())
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a daemon has a pid")?, Signal::TERM)?;
        wait_for("the daemon's end", || Ok(self.child.try_wait()?))
    }

    fn is_ready(&mut self) -> Result<Option<()>> {
        let log = self.log()?;
        if let Some(status) = self.child.try_wait()? {
            bail!("ctguard ended at once ({status}): {}", log.trim());
        }
        // The last words of a start: what is guarded, which table, which target.
        Ok(log.contains(", target ").then_some(()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a guard of this namespace is pinned by default.
pub(crate) fn pins(namespace: &Handle) -> Result<PathBuf> {
    namespace.run(|| {
        let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
        Ok(PathBuf::from(format!("/run/ctguard/{inode}")))
    })
}

/// Where locks, records and events are.
pub const RUN_DIRECTORY: &str = "/run/ctguard-private";

/// A file of the guard that is pinned there, which outlives it: its lock, its events.
pub(crate) fn run_file(pins: &Path, name: &str) -> PathBuf {
    let inode = pins.file_name().unwrap_or_default().to_string_lossy();
    Path::new(RUN_DIRECTORY).join(format!("{inode}.{name}"))
}

/// Removes those files: another namespace will have this one's number.
pub(crate) fn remove_files(pins: &Path) {
    for name in ["lock", "writing", "capturing", "events.jsonl", "events.former.jsonl"] {
        let _ = fs::remove_file(run_file(pins, name));
    }
}
