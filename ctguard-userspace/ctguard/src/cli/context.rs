//! What commands need: the pin path, the privileges, the maps.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::CliError;
use crate::signals::catches;
use ctguard_kernel::{
    bpf::{KernelClock, Pins},
    lock,
    maps::{GuardMaps, OpenError},
    privileges,
};
use ctguard_layout::{programs, units::Jiffies};

/// A daemon writes what it keeps, and removes its guard, before it ends.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) pins: Pins,
}

impl Context {
    pub(super) fn new(pin_path: Option<PathBuf>) -> Result<Self, CliError> {
        let pins = match pin_path {
            Some(path) => std::path::absolute(path).map(Pins::at),
            None => Pins::of_this_namespace(),
        };
        Ok(Self { pins: pins.map_err(CliError::cannot("find out where the guard is pinned"))? })
    }

    /// Sends `signal` to the daemon, unless it is of a release that would be ended by it.
    pub(super) fn tell_daemon(&self, signal: Signal) -> Result<(), CliError> {
        self.maps()?;
        let daemon = lock::daemon_of(self.pins.path()).ok_or(CliError::NoDaemon)?;
        let pid = daemon.pid.ok_or(CliError::NoDaemon)?;
        if !catches(pid, signal.as_raw()).map_err(CliError::cannot("tell the daemon"))? {
            return Err(CliError::OldDaemon { pid });
        }
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(CliError::NoDaemon)?;
        kill_process(process, signal)
            .map_err(|error| CliError::cannot("tell the daemon")(error.into()))
    }

    pub(super) fn maps(&self) -> Result<GuardMaps, CliError> {
        require_privileges()?;
        GuardMaps::open(&self.pins).map_err(|error| {
            let is_incomplete = matches!(error, OpenError::Incomplete { .. });
            if is_incomplete && lock::daemon_of(self.pins.path()).is_some() {
                CliError::Starting
            } else {
                error.into()
            }
        })
    }

    /// Ends the daemon, if one runs, and waits until it has ended; says whether one did.
    pub(super) fn end_daemon(&self) -> Result<bool, CliError> {
        let Some(daemon) = lock::daemon_of(self.pins.path()) else { return Ok(false) };
        let process = daemon.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let Some(process) = process else { return Ok(false) };
        kill_process(process, Signal::TERM)
            .map_err(|error| CliError::cannot("end the daemon")(error.into()))?;
        let began = Instant::now();
        while lock::daemon_of(self.pins.path()).is_some() {
            if began.elapsed() > PATIENCE {
                return Err(CliError::NoAnswer(PATIENCE));
            }
            thread::sleep(POLL);
        }
        Ok(true)
    }

    /// Now, and how many jiffies a second has.
    pub(super) fn now(&self, maps: &GuardMaps) -> Result<(Jiffies, u32), CliError> {
        let per_second = maps.environment().daemon.jiffies_per_second;
        let clock = KernelClock::from_pin(&self.pins.program(programs::CLOCK))?;
        Ok((clock.now(per_second)?, per_second))
    }
}

/// Names what is missing before the kernel says only "not permitted".
pub(super) fn require_privileges() -> Result<(), CliError> {
    match privileges::missing() {
        Some(missing) => {
            Err(CliError::NotPermitted { missing: missing.capability, root: missing.root })
        }
        None => Ok(()),
    }
}
