//! Locks: a daemon waits for none, nobody but root can hold one, and who waits says for whom.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _, pipe},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    daemon::RUN_DIRECTORY,
    pinned::Pinned,
    product::{self, Site, WAN, wait_for},
    require,
};
use rustix::process::{Pid, Signal, kill_process};

/// `nobody` on every distribution.
const NOBODY: [&str; 6] = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];

/// A pipe's capacity, `pipe(7)`.
const PIPE_BYTES: usize = 65_536;

/// Fails when a command whose terminal was stopped while it printed keeps the daemon from granting.
#[test]
fn a_command_that_cannot_print_stops_no_ticks() -> Result<()> {
    if !require::root("a_command_that_cannot_print_stops_no_ticks") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.guard()?;
    let commands: [(&[&str], &[&str], &str); 4] = [
        (&["set", "target=70%"], &["get", "target"], "70%"),
        (&["allow", "add", "192.0.2.7"], &["allow", "list"], "192.0.2.7"),
        (&["deny", "add", "192.0.2.8"], &["deny", "list"], "192.0.2.8"),
        (&["deny", "del", "192.0.2.8"], &["deny", "list"], ""),
    ];
    for (command, question, answer) in commands {
        let (mut reader, mut full) = pipe()?;
        full.write_all(&vec![b'x'; PIPE_BYTES])?;
        let mut stopped = Stopped(site.command(command).stdout(full).spawn()?);
        wait_for("the command's work", || {
            let shown = site.succeed(question)?;
            Ok(if answer.is_empty() {
                !shown.contains("192.0.2.8")
            } else {
                shown.contains(answer)
            }
            .then_some(()))
        })?;
        stopped.signal(Signal::STOP)?;
        wait_for_ticks(&site).with_context(|| format!("{command:?} is stopped"))?;
        site.succeed(&["events"])?;
        ensure!(site.status()?.pointer("/grant/fallback_active") == Some(&false.into()));
        site.succeed(&["set", "floor.tcp.rate=3"])?;

        stopped.signal(Signal::CONT)?;
        ensure!(stopped.0.try_wait()?.is_none(), "{command:?} waits for its reader");
        reader.read_exact(&mut vec![0; PIPE_BYTES])?;
        ensure!(wait_for("the command's end", || Ok(stopped.0.try_wait()?))?.success());
    }
    Ok(())
}

/// Fails when a daemon waits for who holds the lock, or when a command waits without an end or does
/// not say for whom.
#[test]
fn a_lock_that_is_held_stops_no_ticks_and_its_holder_is_named() -> Result<()> {
    if !require::root("a_lock_that_is_held_stops_no_ticks_and_its_holder_is_named") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    let lock =
        File::options().create(true).truncate(false).write(true).open(site.writing_lock())?;
    lock.lock()?;
    // What the daemon follows each second, and what it looks at when a link changes.
    site.guarded().sysctl(&[("net.netfilter.nf_conntrack_udp_timeout", "17")])?;
    site.guarded().ip(&[format!("link set {WAN} promisc on")])?;
    wait_for_ticks(&site)?;
    site.succeed(&["events"])?;
    let status = site.status()?;
    ensure!(status.pointer("/grant/fallback_active") == Some(&false.into()), "{status}");

    let us = format!("pid {}: ", std::process::id());
    for command in [&["set", "target=70%"][..], &["allow", "add", "192.0.2.7"]] {
        let answer = site.ctguard(command)?;
        let line = answer.refusal(1)?;
        let own = std::env::args().next().unwrap_or_default();
        let name = own.rsplit('/').next().unwrap_or_default();
        ensure!(line.contains(&us) && line.contains(name), "{line}");
    }
    daemon.kill()?;
    let answer = site.ctguard(&["run", "-i", WAN])?;
    ensure!(answer.errors.contains(&us) && answer.code == Some(1), "{answer:?}");
    drop(lock);
    ensure!(site.succeed(&["get", "target"])?.trim() == "85%");
    site.succeed(&["set", "target=70%"])?;
    site.guard()?.stop()?;
    site.ensure_gone()
}

/// Fails when who cannot see the daemon is told to kill a process of its own that has the same pid.
#[test]
fn a_holder_in_another_pid_namespace_is_not_named_by_its_pid() -> Result<()> {
    if !require::root("a_holder_in_another_pid_namespace_is_not_named_by_its_pid") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    let mut elsewhere = site.guarded().command("unshare");
    elsewhere.args(["--pid", "--fork", "--mount-proc", "--propagation", "unchanged"]);
    elsewhere.arg(product::binary()?).args(["run", "-i", WAN]);
    let answer = product::answer(&mut elsewhere)?;
    let line = answer.refusal(1)?;
    ensure!(line.contains("(another process)") && !line.contains("kill"), "{line}");
    ensure!(daemon.stop()?.success());
    Ok(())
}

/// Fails when a user without privileges can hold what a daemon or a command locks, or read what is
/// root's.
#[test]
fn nobody_but_root_can_hold_a_lock() -> Result<()> {
    if !require::root("nobody_but_root_can_hold_a_lock") {
        return Ok(());
    }
    let site = Site::build()?;
    let mut hold = Command::new("setpriv");
    hold.args(NOBODY).args(["sh", "-c", "exec 9</run; flock 9; echo held; exec sleep 1000"]);
    let mut holder = Stopped(hold.stdout(Stdio::piped()).spawn()?);
    let said = BufReader::new(holder.0.stdout.take().context("a pipe")?).lines().next();
    ensure!(said.transpose()?.as_deref() == Some("held"), "nobody holds /run");

    let daemon = site.guard()?;
    site.succeed(&["set", "target=70%"])?;
    ensure!(site.succeed(&["events"])?.contains(WAN));
    let files = ["lock", "writing", "events.jsonl"].map(|name| site.run_file(name));
    for file in &files {
        ensure!(fs::metadata(file).is_ok(), "{} is there", file.display());
    }
    let directories = [RUN_DIRECTORY.into(), site.pins().to_owned()];
    for path in files.iter().chain(&directories) {
        let mut open = Command::new("setpriv");
        open.args(NOBODY).args(["flock", "--nonblock"]).arg(path).arg("true");
        let output = open.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains("denied"), "{}: {said}", path.display());
    }
    ensure!(daemon.stop()?.success());
    Ok(())
}

/// Waits until the daemon has ticked for longer than anything that it does each second could wait.
fn wait_for_ticks(site: &Site) -> Result<()> {
    let pinned = Pinned::open(site.pins())?;
    let first = pinned.heartbeat();
    let enough = first + 4 * u64::from(pinned.jiffies_per_second());
    wait_for("the daemon's ticks", || Ok((pinned.heartbeat() > enough).then_some(())))
}

/// A process that may be stopped; killed when dropped.
struct Stopped(Child);

impl Stopped {
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
