//! The guide: every command in it does what it says.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{product, require, sysctl};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/table-full.md");
const SETTINGS: [&str; 3] = [
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
];
/// A machine of its own as far as files go: what the commands write into is a copy.
const SANDBOX: &str = "set -e
    copy=$(mktemp -d)
    trap 'ctguard tune --revert >/dev/null || true; nft delete table netdev early 2>/dev/null || true; nft delete table inet untracked 2>/dev/null || true; umount /etc /var/lib; rm -rf $copy' EXIT
    mkdir $copy/etc $copy/lib
    cp -a /etc/. $copy/etc
    mount --bind $copy/etc /etc
    mount --bind $copy/lib /var/lib
";

/// Lines that are indented by four spaces are commands.
fn commands(guide: &str) -> Vec<&str> {
    guide.lines().filter_map(|line| line.strip_prefix("    ")).collect()
}

/// Fails when the guide names a command that is refused, or one that leaves something changed.
#[test]
fn every_command_of_the_guide_works_and_leaves_nothing_changed() -> Result<()> {
    const TEST: &str = "every_command_of_the_guide_works_and_leaves_nothing_changed";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    let binary = product::binary()?;
    let directory = binary.parent().context("the binary has a directory")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let guide = fs::read_to_string(Path::new(GUIDE))?;
    let commands = commands(&guide);
    ensure!(commands.len() >= 10, "only {} commands", commands.len());
    let before = SETTINGS.map(|key| sysctl::read(key).ok());

    // Doctor's status 1 is an answer, and no failure.
    let lines: Vec<_> = commands
        .iter()
        .map(|command| match command.strip_prefix("ctguard doctor") {
            Some(rest) => format!("ctguard doctor{rest} > /dev/null || [ $? = 1 ]"),
            // Nobody has half a day here.
            None => format!("{} > /dev/null", command.replace("--watch 12h", "--watch 1s")),
        })
        .collect();
    let script = format!("{SANDBOX}{}\n", lines.join("\n"));
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .env("PATH", format!("{}:{path}", directory.display()))
        .output()
        .context("cannot run unshare")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    println!("{} commands of the guide were run", commands.len());
    ensure!(before == SETTINGS.map(|key| sysctl::read(key).ok()), "a setting is another now");
    Ok(())
}
