//! Killed at each system call that changes something.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{product, require};

/// What changes something on a machine.
const CHANGES: &str = "openat,write,fsync,rename,mkdir,unlink,rmdir";
const APPLY: &[&str] = &["--for", "nat-router", "--apply", "--persist"];
const REVERT: &[&str] = &["--revert"];

/// A machine of files: a router with the values of a small machine, and files of its own.
const MACHINE: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n"),
    ("proc/sys/net/ipv4/ip_forward", "1\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "512\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "7680\n"),
    ("proc/sys/net/netfilter/nf_conntrack_buckets", "7680\n"),
    ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000\n"),
    ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "120\n"),
    ("etc/sysctl.d/99-sysctl.conf", "# somebody else's\nnet.ipv4.ip_forward = 1\n"),
    ("usr/lib/systemd/systemd-sysctl", ""),
];

/// Files by path, without the directory that tune keeps its record in.
type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("ctguard-tune-{}-{name}", std::process::id()));
        for (path, text) in MACHINE {
            let path = root.join(path);
            fs::create_dir_all(path.parent().context("a file has a directory")?)?;
            fs::write(path, text)?;
        }
        Ok(Self(root))
    }

    fn files(&self) -> Result<Files> {
        let mut files = Files::new();
        collect(&self.0, &self.0, &mut files)?;
        Ok(files)
    }

    fn tune(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(product::binary()?);
        Ok(command.args(["tune", "--root"]).arg(&self.0).args(arguments).output()?)
    }

    /// The same, killed at the change of this number; whether it was.
    fn tune_killed(&self, arguments: &[&str], change: u32) -> Result<bool> {
        let mut command = Command::new("strace");
        command.args(["-o", "/dev/null", "-e", &format!("trace={CHANGES}")]);
        command.args(["-e", &format!("inject={CHANGES}:signal=SIGKILL:when={change}")]);
        command.arg(product::binary()?).args(["tune", "--root"]).arg(&self.0).args(arguments);
        let output = command.output().context("cannot run strace")?;
        Ok(!output.status.success())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn collect(directory: &Path, root: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.strip_prefix(root)?.to_owned();
        if name == Path::new("var") {
            continue;
        }
        if path.is_dir() {
            files.insert(name, None);
            collect(&path, root, files)?;
        } else {
            files.insert(name, Some(fs::read(&path)?));
        }
    }
    Ok(())
}

fn succeed(output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// Fails when there is a moment in which a kill leaves a value or a file that cannot be taken back.
#[test]
fn whatever_was_done_when_it_was_killed_is_taken_back_byte_for_byte() -> Result<()> {
    if !require::program("whatever_was_done_when_it_was_killed", "strace") {
        return Ok(());
    }
    let machine = Machine::new("apply")?;
    let before = machine.files()?;
    let mut kills = 0_u32;
    while machine.tune_killed(APPLY, kills + 1)? {
        kills += 1;
        // Without a record nothing was changed.
        machine.tune(REVERT)?;
        ensure!(machine.files()? == before, "killed at change {kills}");
    }
    println!("killed at each of {kills} changes of apply");
    ensure!(kills > 40, "only {kills} changes");
    let after = machine.files()?;
    ensure!(after != before, "the last run was not killed");
    succeed(&machine.tune(REVERT)?)?;
    ensure!(machine.files()? == before, "what was applied whole is taken back");
    Ok(())
}

/// Fails when taking back, killed half way, cannot be taken up again.
#[test]
fn a_revert_that_was_killed_goes_on_where_it_ended() -> Result<()> {
    if !require::program("a_revert_that_was_killed_goes_on_where_it_ended", "strace") {
        return Ok(());
    }
    let machine = Machine::new("revert")?;
    let before = machine.files()?;
    let mut kills = 0_u32;
    loop {
        succeed(&machine.tune(APPLY)?)?;
        let killed = machine.tune_killed(REVERT, kills + 1)?;
        // One that had done all but say so finds nothing left.
        machine.tune(REVERT)?;
        ensure!(machine.files()? == before, "killed at change {}", kills + 1);
        if !killed {
            break;
        }
        kills += 1;
    }
    println!("killed at each of {kills} changes of revert");
    ensure!(kills > 20, "only {kills} changes");
    Ok(())
}

/// Fails when what was applied twice is taken back only once.
#[test]
fn two_applications_are_taken_back_at_once() -> Result<()> {
    if !require::release_binary("two_applications_are_taken_back_at_once") {
        return Ok(());
    }
    let machine = Machine::new("twice")?;
    let before = machine.files()?;
    succeed(&machine.tune(&["--max", "20000", "--apply"])?)?;
    succeed(&machine.tune(&["--max", "40000", "--apply", "--persist"])?)?;
    succeed(&machine.tune(REVERT)?)?;
    ensure!(machine.files()? == before, "as before both");
    let again = machine.tune(REVERT)?;
    ensure!(again.status.code() == Some(1), "there is nothing left to take back");
    Ok(())
}
