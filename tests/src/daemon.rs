//! A `ctguard run` that a test starts, and ends in one way or another.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::product::wait_for;

/// A running `ctguard run`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`, whose output goes to `log`, and waits until it says that it guards.
    pub fn start(command: &Command, log: PathBuf) -> Result<Self> {
        let errors = fs::File::create(&log).context("cannot write the daemon's log")?;
        let mut daemon = Self::start_into(command, errors.into())?;
        daemon.log = log;
        wait_for("the daemon", || daemon.is_ready())?;
        Ok(daemon)
    }

    /// Starts `command`, whose standard error goes elsewhere; it may not guard yet.
    pub fn start_into(command: &Command, errors: Stdio) -> Result<Self> {
        // A test that is killed takes its daemon along.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"]);
        tied.arg(command.get_program()).args(command.get_args());
        tied.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = tied.spawn().context("cannot start ctguard")?;
        Ok(Self { child, log: PathBuf::new() })
    }

    /// Its process: `setpriv` and `nsenter` become the program that they start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("cannot read the daemon's log")
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
