//! The signals that ask a command to end.

use std::{fs, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

const HANG_UP: i32 = 1;

#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// None if the parent process ignored it, as `nohup` does, or if it asks for something else.
    hang_up: Option<Signal>,
}

/// The signals that ask the daemon to read its configuration again: SIGUSR2, and SIGHUP unless a
/// terminal would send it as it goes away.
#[derive(Debug)]
pub(crate) struct Reload {
    user_defined2: Signal,
    hang_up: Option<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl-C by a user.
    Interrupt,
    /// The machine or the terminal goes away.
    End,
}

impl Stop {
    /// Must be called within a runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        let hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        Self::with(hang_up)
    }

    fn with(hang_up: Option<Signal>) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up,
        })
    }

    /// The same for a daemon, with what asks it to read its configuration again.
    pub(crate) fn or_reload() -> io::Result<(Self, Reload)> {
        let mut hang_up =
            if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        let stop = Self::with(if has_terminal() { hang_up.take() } else { None })?;
        Ok((stop, Reload { user_defined2: signal(SignalKind::user_defined2())?, hang_up }))
    }

    pub(crate) async fn requested(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::End,
            () = received(&mut self.hang_up) => Asked::End,
        }
    }
}

impl Reload {
    pub(crate) async fn requested(&mut self) {
        tokio::select! {
            _ = self.user_defined2.recv() => {}
            () = received(&mut self.hang_up) => {}
        }
    }
}

/// Waits for a signal; forever if it is not caught.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process has a controlling terminal, see tty(4).
fn has_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

fn ignores_hang_up() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| is_hang_up_ignored(&status))
}

fn is_hang_up_ignored(status: &str) -> bool {
    has_signal(status, "SigIgn:", HANG_UP)
}

/// Whether the process waits for `signal`, which would end it if not.
pub(crate) fn catches(pid: u32, signal: i32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(has_signal(&status, "SigCgt:", signal))
}

/// Whether a mask of `/proc/PID/status` has the signal, see proc(5).
fn has_signal(status: &str, mask: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix(mask));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when `ctguard reload` kills a daemon of a release that cannot reload.
    #[test]
    fn a_process_that_would_be_ended_by_a_signal_is_told_by_its_bit() {
        let status = "SigIgn:\t0000000000001000\nSigCgt:\t0000000100004202\n";
        assert!(has_signal(status, "SigCgt:", 2) && has_signal(status, "SigCgt:", 10));
        assert!(!has_signal(status, "SigCgt:", 12) && !has_signal("", "SigCgt:", 12));
        assert!(!catches(std::process::id(), 12).unwrap());
    }

    /// Fails when what `nohup` started ends with its terminal.
    #[test]
    fn a_hang_up_that_was_ignored_from_the_start_is_told_by_its_bit() {
        assert!(is_hang_up_ignored("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!is_hang_up_ignored("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"));
        assert!(!is_hang_up_ignored(""));
    }
}
