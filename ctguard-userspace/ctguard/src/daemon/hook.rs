//! The operator's program that learns of incidents: run when one begins and when one ends, with the
//! incident as JSON on standard input. It runs on a thread, so that no tick waits for it.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create},
    io::Errno,
    process::{Pid, Signal, kill_process_group},
};
use thiserror::Error;

use super::{Guard, background::Background, outside::Outside};
use crate::events::What;

/// A hook that runs for longer is killed, with what it started.
const LONGEST: Duration = Duration::from_secs(10);
/// Runs that wait for the one before them.
const MOST_WAITING: usize = 8;
const POLL: Duration = Duration::from_millis(20);
/// Parts of 4 KiB that are read at a time: a hook may write faster than anybody reads.
const PARTS: usize = 64;
/// The kernel ends who was killed within this, unless a disk or a server does not answer.
const DYING: Duration = Duration::from_secs(1);
/// Bytes of what it says on standard error that are told.
const MOST_TOLD: usize = 300;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Error)]
enum HookError {
    #[error("cannot start it: {0}")]
    Start(#[from] io::Error),
    #[error("it did not end within {} s, and was killed{}", .limit.as_secs(), quoted(.told))]
    Late { limit: Duration, told: String },
    #[error("it ended with {status}{}", quoted(.told))]
    Failed { status: ExitStatus, told: String },
    #[error("the daemon ended")]
    Cut,
    #[error("{MOST_WAITING} others wait")]
    Busy,
}

fn quoted(told: &str) -> String {
    if told.is_empty() { String::new() } else { format!(": {told}") }
}

/// Runs one hook at a time.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    waiting: VecDeque<Run>,
    running: Option<(u64, Background<Result<(), HookError>>)>,
    is_ending: Arc<AtomicBool>,
}

/// What is to be run about an incident.
#[derive(Debug)]
struct Run {
    incident: u64,
    command: Vec<String>,
    json: Vec<u8>,
}

impl Hooks {
    /// Lets `command`, if there is one, run soon.
    pub(super) fn add(&mut self, incident: u64, command: &[String], json: Vec<u8>) -> Option<What> {
        if command.is_empty() {
            return None;
        }
        if self.waiting.len() >= MOST_WAITING {
            return Some(failed(incident, &HookError::Busy));
        }
        self.waiting.push_back(Run { incident, command: command.to_vec(), json });
        None
    }

    /// Begins the next run if none is under way; tells how one failed.
    fn follow(&mut self, outside: &Outside) -> Option<What> {
        let mut told = None;
        if let Some((incident, running)) = self.running.take() {
            let mut slot = Some(running);
            match Background::take_finished(&mut slot) {
                Some(done) => told = done.err().map(|error| failed(incident, &error)),
                None => self.running = slot.map(|running| (incident, running)),
            }
        }
        if self.running.is_none()
            && let Some(Run { incident, command, json }) = self.waiting.pop_front()
        {
            let is_ending = Arc::clone(&self.is_ending);
            let job = move || run(&command, &json, LONGEST, &is_ending);
            match outside.run(move || Background::start("ctguard-hook", job)) {
                Ok(running) => self.running = Some((incident, running)),
                Err(error) => told = told.or(Some(failed(incident, &error.into()))),
            }
        }
        told
    }
}

impl Drop for Hooks {
    /// Kills one that is under way. One that cannot be killed, or not even started, because a disk or a
    /// server does not answer, does not hold the daemon up.
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let mut running = self.running.take().map(|(_, running)| running);
        while running.is_some() && began.elapsed() < DYING * 2 {
            if Background::take_finished(&mut running).is_none() {
                thread::sleep(POLL);
            }
        }
    }
}

/// Once per second.
pub(super) fn follow(guard: &mut Guard) {
    if let Some(failure) = guard.hooks.follow(&guard.outside) {
        guard.report(failure);
    }
}

fn failed(incident: u64, error: &HookError) -> What {
    What::HookFailed { incident, error: error.to_string() }
}

fn run(
    command: &[String],
    json: &[u8],
    limit: Duration,
    is_ending: &AtomicBool,
) -> Result<(), HookError> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(in_memory(json)?)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // What it starts is killed with it.
        .process_group(0)
        .spawn()?;
    // The daemon is the last that the kernel kills when memory runs out; the hook is not.
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
    let mut errors = child.stderr.take().filter(is_made_nonblocking);
    let mut told = Vec::new();
    loop {
        let status = child.try_wait()?;
        read_some(&mut errors, &mut told);
        let told = || first_line(&told);
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(HookError::Failed { status, told: told() }),
            None if is_ending.load(Ordering::Relaxed) => {
                kill(&mut child);
                return Err(HookError::Cut);
            }
            None if began.elapsed() >= limit => {
                kill(&mut child);
                return Err(HookError::Late { limit, told: told() });
            }
            None => thread::sleep(POLL),
        }
    }
}

/// A file without a name: the hook need not read it, and nobody waits until it has.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let create = |flags| memfd_create("incident.json", MemfdFlags::CLOEXEC | flags);
    // With vm.memfd_noexec=2 it must be one that nobody runs, which Linux 6.2 does not know.
    let made = create(MemfdFlags::NOEXEC_SEAL).or_else(|error| match error {
        Errno::INVAL => create(MemfdFlags::empty()),
        error => Err(error),
    });
    let mut file = File::from(made?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

fn is_made_nonblocking(pipe: &ChildStderr) -> bool {
    let flags = fcntl_getfl(pipe).unwrap_or(OFlags::empty());
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).is_ok()
}

/// Reads what is there, so that the hook need not wait, and keeps the start of it.
fn read_some(errors: &mut Option<ChildStderr>, told: &mut Vec<u8>) {
    let Some(pipe) = errors else { return };
    let mut buffer = [0; 4096];
    for _ in 0..PARTS {
        let Ok(bytes @ 1..) = pipe.read(&mut buffer) else { return };
        let room = MOST_TOLD.saturating_sub(told.len());
        told.extend(&buffer[..bytes.min(room)]);
    }
}

fn first_line(told: &[u8]) -> String {
    let text = String::from_utf8_lossy(told);
    text.trim().lines().next().unwrap_or_default().to_owned()
}

fn kill(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // It may have gone to another group.
    let _ = child.kill();
    let began = Instant::now();
    while began.elapsed() < DYING && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str, limit: Duration) -> Result<(), HookError> {
        let command = ["/bin/sh", "-c", script, "hook", "an argument"].map(str::to_owned);
        run(&command, br#"{"incidents": [{"number": 7}]}"#, limit, &AtomicBool::default())
    }

    #[test]
    fn a_hook_has_its_arguments_and_the_incident_on_its_standard_input() {
        let script = r#"test "$1" = "an argument" && grep -q '"number": 7' && test "$(pwd)" = /"#;
        assert!(run_shell(script, LONGEST).is_ok());
    }

    #[test]
    fn a_hook_that_fails_is_told_with_the_first_thing_it_said() {
        let error = run_shell("echo 'no route' >&2; echo more >&2; exit 3", LONGEST).unwrap_err();
        assert_eq!(error.to_string(), "it ended with exit status: 3: no route");
        let missing = run(&["/nowhere/hook".to_owned()], b"", LONGEST, &AtomicBool::default());
        assert!(missing.unwrap_err().to_string().starts_with("cannot start it: No such file"));
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed_with_what_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let script = format!("(sleep 1; echo > {}) & sleep 60", mark.display());
        let began = Instant::now();
        let error = run_shell(&script, Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, HookError::Late { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(1));
        thread::sleep(Duration::from_millis(1200));
        assert!(!mark.exists());
    }

    #[test]
    fn a_hook_may_say_more_than_anybody_reads() {
        let script = "head -c 300000 /dev/zero | tr '\\0' x >&2; exit 1";
        let error = run_shell(script, LONGEST).unwrap_err().to_string();
        assert!(error.starts_with("it ended with exit status: 1: xxx"), "{error}");
        assert!(error.len() < 400);
    }

    /// Fails when neither the limit nor the end of the daemon ends a hook that never stops writing.
    #[test]
    fn a_hook_that_writes_without_end_is_killed_in_time() {
        for script in ["exec yes >&2", "trap '' TERM HUP INT; (yes >&2) & (yes >&2) & exec yes >&2"]
        {
            let began = Instant::now();
            let error = run_shell(script, Duration::from_millis(200)).unwrap_err();
            assert!(matches!(error, HookError::Late { .. }), "{error}");
            assert!(error.to_string().ends_with("was killed: y"), "{error}");
            assert!(began.elapsed() < Duration::from_secs(3));
        }
        let began = Instant::now();
        let hook = ["/bin/sh", "-c", "exec yes >&2"].map(str::to_owned);
        let error = run(&hook, b"", LONGEST, &AtomicBool::new(true)).unwrap_err();
        assert!(matches!(error, HookError::Cut), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn what_a_hook_leaves_in_the_background_is_not_waited_for() {
        let began = Instant::now();
        assert!(run_shell("(sleep 3; yes | head -c 9999999 >&2) & exit 0", LONGEST).is_ok());
        let error = run_shell("sleep 3 & echo no >&2; exit 1", LONGEST).unwrap_err();
        assert_eq!(error.to_string(), "it ended with exit status: 1: no");
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_hook_may_close_its_standard_input_or_not_be_a_program() {
        let long = vec![b' '; 1 << 20];
        let closes = ["/bin/sh", "-c", "exec <&-"].map(str::to_owned);
        assert!(run(&closes, &long, LONGEST, &AtomicBool::default()).is_ok());
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "#!/bin/sh\n").unwrap();
        for path in [directory.path(), &plain] {
            let path = path.display().to_string();
            let error = run(&[path], b"", LONGEST, &AtomicBool::default()).unwrap_err();
            assert!(error.to_string().starts_with("cannot start it: Permission denied"), "{error}");
        }
    }

    #[test]
    fn one_runs_at_a_time_and_the_end_of_the_daemon_ends_it() {
        let mut hooks = Hooks::default();
        let command = ["/bin/sleep", "60"].map(str::to_owned);
        assert_eq!(hooks.add(1, &[], Vec::new()), None);
        for incident in 1..=2 {
            assert_eq!(hooks.add(incident, &command, Vec::new()), None);
        }
        for _ in 0..3 {
            assert_eq!(hooks.follow(&Outside::default()), None);
            assert_eq!(hooks.waiting.len(), 1);
        }
        let began = Instant::now();
        drop(hooks);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
