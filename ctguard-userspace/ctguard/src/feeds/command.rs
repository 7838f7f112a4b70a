//! Runs a program of the system: no shell, a time limit, and no more output than can be kept.

use std::{
    io::{self, Read as _},
    os::fd::AsFd as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::stop::{Stop, Wait};

/// Of an error message.
const MOST_ERROR_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) out: Vec<u8>,
    pub(super) errors: String,
}

/// None if it was stopped.
pub(super) fn run(
    command: &mut Command,
    stop: &Stop,
    patience: Duration,
    most_bytes: usize,
) -> io::Result<Option<Output>> {
    let began = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Ended(command.env("LC_ALL", "C").spawn()?);
    let errors = child.0.stderr.take().map(|errors| {
        thread::spawn(move || {
            let mut text = Vec::new();
            // What was read until then says enough.
            let _ = errors.take(MOST_ERROR_BYTES).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let Some(mut stdout) = child.0.stdout.take() else {
        return Err(io::Error::other("it has no output"));
    };
    let (mut out, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let left = patience.saturating_sub(began.elapsed());
        match stop.wait(Some(stdout.as_fd()), left)? {
            Wait::Stopped => return Ok(None),
            Wait::TimedOut if left.is_zero() => {
                return Err(io::Error::other(format!("it ran for more than {patience:?}")));
            }
            Wait::TimedOut => {}
            Wait::Ready => match stdout.read(&mut buffer)? {
                0 => break,
                bytes => out.extend_from_slice(&buffer[..bytes]),
            },
        }
        if out.len() > most_bytes {
            return Err(io::Error::other(format!("it prints more than {most_bytes} bytes")));
        }
    }
    // Whoever closes its output ends.
    let status = child.0.wait()?;
    let errors = errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
    Ok(Some(Output { status, out, errors }))
}

/// A program that does not outlive its use.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feeds::stop;

    fn run_shell(script: &str, patience: u64) -> io::Result<Option<Output>> {
        let (_running, stop) = stop::pair()?;
        let mut command = Command::new("/bin/sh");
        run(command.args(["-c", script]), &stop, Duration::from_millis(patience), 100_000)
    }

    #[test]
    fn output_status_and_errors_are_told() {
        let output = run_shell("echo out; echo error >&2; exit 3", 60_000).unwrap().unwrap();
        assert_eq!((&output.out[..], output.status.code()), (&b"out\n"[..], Some(3)));
        assert_eq!(output.errors, "error\n");
    }

    #[test]
    fn a_program_that_does_not_end_or_prints_without_end_is_ended() {
        let began = Instant::now();
        let error = run_shell("exec sleep 60", 100).unwrap_err().to_string();
        assert!(error.contains("ran for more than 100ms"), "{error}");
        let error = run_shell("exec cat /dev/zero", 60_000).unwrap_err().to_string();
        assert!(error.contains("more than 100000 bytes"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn errors_without_end_hold_nothing_up() {
        let output = run_shell("head -c 1000000 /dev/zero >&2; echo out", 60_000);
        assert_eq!(output.unwrap().unwrap().out, b"out\n");
    }

    #[test]
    fn a_program_of_a_feed_that_is_not_wanted_any_more_is_ended() {
        let (running, stop) = stop::pair().unwrap();
        drop(running);
        let mut command = Command::new("/bin/sleep");
        let output = run(command.arg("60"), &stop, Duration::from_mins(1), 1).unwrap();
        assert!(output.is_none());
    }
}
