//! Without root, and what root gives up.

use std::{fs, os::unix::fs::symlink, process::Command};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    daemon::Daemon,
    product::{self, Site, WAN, wait_for},
    require,
};

/// `nobody` on every distribution.
const NOBODY: &str = "65534";

/// Fails when a command without privileges does anything, or does not say what it lacks.
#[test]
fn without_root_commands_say_what_they_lack() -> Result<()> {
    if !require::root("without_root_commands_say_what_they_lack") {
        return Ok(());
    }
    let site = Site::build()?;
    let copied = readable_copy(&site)?;
    let _daemon = site.guard()?;
    let verbs: [&[&str]; 8] = [
        &["run", "-i", WAN],
        &["status"],
        &["status", "--json"],
        &["get"],
        &["set", "target=50%"],
        &["deny", "add", "192.0.2.1"],
        &["allow", "list"],
        &["detach"],
    ];
    for verb in verbs {
        let mut command = site.guarded().command("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]);
        command.arg(copied.path()).args(verb);
        let answer = product::answer(&mut command)?;
        let line = answer.refusal(4)?;
        ensure!(line.contains("root") || line.contains("CAP_"), "{verb:?}: {line}");
    }
    ensure!(site.succeed(&["get", "target"])?.trim() == "85%", "nothing changed");
    ensure!(site.xdp(WAN)?.is_some());
    Ok(())
}

/// Fails when a daemon that is led elsewhere writes there, keeps capabilities or can gain some, when that
/// stops it, or when the thread that mounts and runs hooks is restricted too.
#[test]
fn a_daemon_writes_only_where_it_keeps_something() -> Result<()> {
    if !require::root("a_daemon_writes_only_where_it_keeps_something") {
        return Ok(());
    }
    let site = Site::build()?;
    let elsewhere = tempfile::tempdir()?;
    let daemon = site.guard()?;
    site.succeed(&["deny", "add", "203.0.113.0/24"])?;
    let lists = || Ok(has_lists(&site.state())?.then_some(()));
    wait_for("the lists", lists)?;
    ensure_given_up(&daemon)?;
    if daemon.log()?.contains("no Landlock") {
        println!("not tried: this kernel has no Landlock");
        return Ok(());
    }
    ensure!(!daemon.log()?.contains("not fully confined"), "{}", daemon.log()?);

    let away = elsewhere.path().join("away");
    fs::rename(site.state(), &away)?;
    symlink(elsewhere.path(), site.state())?;
    site.succeed(&["deny", "add", "198.51.100.0/24"])?;
    wait_for("a line about the lists", || {
        let log = daemon.log()?;
        Ok((log.contains("cannot keep the lists") && log.contains("ermission denied"))
            .then_some(()))
    })?;
    ensure!(!has_lists(elsewhere.path())?, "it wrote where the link leads");
    ensure!(site.succeed(&["deny", "list"])?.contains("198.51.100.0/24"), "it guards on");

    ensure!(daemon.stop()?.success());
    fs::remove_file(site.state())?;
    site.ensure_gone()
}

/// Whether all threads but those that need them gave up privileges.
fn ensure_given_up(daemon: &Daemon) -> Result<()> {
    for (name, status) in threads(daemon.pid())? {
        let field = |key: &str| -> Option<&str> {
            status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
        };
        let gives_up = field("NoNewPrivs:").context("a kernel since 4.10")? == "1";
        // The log's thread, which only writes what is open, was there before.
        let is_former = ["ctguard-outside", "ctguard-log"].contains(&name.as_str());
        ensure!(gives_up != is_former, "{name}");
        let kept = u64::from_str_radix(field("CapPrm:").context("capabilities")?, 16)?;
        let modules = kept >> 16 & 1 == 1;
        // Root of a container may lack it from the start.
        ensure!(!(modules && gives_up), "{name} has {kept:x}");
    }
    Ok(())
}

fn has_lists(directory: &std::path::Path) -> Result<bool> {
    let mut names = fs::read_dir(directory)?.flatten().map(|entry| entry.file_name());
    Ok(names.any(|name| name.to_string_lossy().starts_with("lists-")))
}

/// Name and status of each.
fn threads(pid: u32) -> Result<Vec<(String, String)>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten().map(|entry| entry.path());
    // One may have ended.
    let read = threads.filter_map(|thread| {
        let name = fs::read_to_string(thread.join("comm")).ok()?.trim().to_owned();
        Some((name, fs::read_to_string(thread.join("status")).ok()?))
    });
    Ok(read.collect())
}

/// A copy of the binary where anybody may run it: the repository may lie in somebody's home.
fn readable_copy(site: &Site) -> Result<Copied> {
    let path = std::env::temp_dir().join(format!("{}-binary", site.guarded().name()));
    std::fs::copy(product::binary()?, &path)?;
    let ran = Command::new("chmod").arg("755").arg(&path).status()?;
    ensure!(ran.success());
    Ok(Copied(path))
}

struct Copied(std::path::PathBuf);

impl Copied {
    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
