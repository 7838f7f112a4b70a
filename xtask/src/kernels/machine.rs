//! A virtual machine under QEMU, by software alone: it needs no KVM and no network.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::exec;

/// A machine that is still on is ended. All steps take a third of this on two busy CPUs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(15);

const QEMU: &str = "qemu-system-x86_64";
/// A busy host is late with the ticks by which a kernel checks its timer, which it would panic for.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check";
/// What has no dot and a value becomes a variable of init's environment.
const ENVIRONMENT: &str = "PATH=/bin CTGUARD_BINARY=/bin/ctguard CI=true";

/// What a machine is made of.
pub(crate) struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) storage: Storage,
    /// Where what it prints goes.
    pub(crate) console: PathBuf,
}

/// Where a machine's root is.
pub(crate) enum Storage {
    /// In memory, as the archive has it.
    Initramfs(PathBuf),
    /// On a disk that outlasts the machine; the word is found in its `/proc/cmdline`.
    Disk(PathBuf, &'static str),
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself: it powered off, or its kernel panicked.
    PoweredOff,
    /// It was ended.
    TimedOut,
}

impl Machine {
    /// Runs it, and gives each line of its second serial port to `read`.
    pub(crate) fn run(&self, read: impl FnMut(&str)) -> Result<End> {
        watch(&mut self.command(), PATIENCE, read)
    }

    /// The last lines that it printed.
    pub(crate) fn console_tail(&self, lines: usize) -> Result<String> {
        let path = self.console.display();
        let bytes = fs::read(&self.console).with_context(|| format!("cannot read {path}"))?;
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<_> = text.lines().collect();
        let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
        Ok(tail.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"))
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new(QEMU);
        qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel);
        let root = match &self.storage {
            Storage::Initramfs(image) => {
                qemu.arg("-initrd").arg(image);
                ENVIRONMENT.to_owned()
            }
            Storage::Disk(image, word) => {
                // Kernels of the cloud have this one's driver built in.
                qemu.args(["-device", "nvme,drive=disk,serial=disk", "-drive"])
                    .arg(format!("id=disk,if=none,format=raw,file={}", image.display()));
                format!("root=/dev/nvme0n1 rw {word}")
            }
        };
        qemu.args(["-append", &format!("{COMMAND_LINE} {root}")]);
        qemu
    }
}

/// Runs `command` no longer than `patience`, and gives each line that it prints to `read`.
fn watch(command: &mut Command, patience: Duration, mut read: impl FnMut(&str)) -> Result<End> {
    let failed = format!("cannot run `{}`", exec::shown(command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| failed.clone())?;
    let output = child.stdout.take().with_context(|| failed.clone())?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        // It ends with the machine, which closes its end.
        let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        lines.for_each(|line| drop(sender.send(line)));
    });

    let deadline = Instant::now() + patience;
    let end = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => read(String::from_utf8_lossy(&line).trim_end()),
            Err(RecvTimeoutError::Disconnected) => break End::PoweredOff,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().with_context(|| failed.clone())?;
                break End::TimedOut;
            }
        }
    };
    child.wait().with_context(|| failed.clone())?;
    // It has nothing left to read.
    let _ = reader.join();
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_until_a_machine_ends_by_itself() {
        let mut lines = Vec::new();
        let mut command = Command::new("printf");
        let end = watch(command.arg(r"one\r\ntwo\r\n"), PATIENCE, |it| lines.push(it.to_owned()));
        assert_eq!(end.unwrap(), End::PoweredOff);
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_machine_that_hangs_is_ended() {
        let mut command = Command::new("sleep");
        let end = watch(command.arg("1000"), Duration::from_millis(1), |_| {});
        assert_eq!(end.unwrap(), End::TimedOut);
    }
}
