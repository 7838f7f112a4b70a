//! Mount namespaces that die with their process: pins made there would, too.

use std::process::Command;

use anyhow::{Result, ensure};
use ctguard_tests::{
    daemon::RUN_DIRECTORY,
    product::{self, Site, WAN},
    require,
};

/// Fails when `ip netns exec` makes a guard that dies with the command, or is refused without the
/// way that works.
#[test]
fn under_ip_netns_exec_a_guard_lasts_or_is_refused() -> Result<()> {
    if !require::root("under_ip_netns_exec_a_guard_lasts_or_is_refused") {
        return Ok(());
    }
    let site = Site::build()?;
    let name = site.guarded().name().to_owned();
    let exec = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name]).arg(product::binary()?).args(arguments);
        Ok(command)
    };

    let shared = std::path::Path::new("/run/ctguard").exists();
    if !shared {
        let answer = product::answer(&mut exec(&["run", "-i", WAN])?)?;
        let line = answer.refusal(1)?;
        ensure!(line.contains("nsenter") && line.contains(&name), "{line}");
        ensure!(site.xdp(WAN)?.is_none(), "nothing is attached");
    }

    // With a guard of another namespace there is a bpffs that lasts, which is inherited.
    let other = site.neighbour()?;
    let first = other.guard()?;
    site.start_by(exec(&["run", "-i", WAN])?)?.kill()?;
    ensure!(site.pins().join("policy").exists(), "its pins are where they last");
    ensure!(site.xdp(WAN)?.is_some(), "and the program lives");
    site.succeed(&["status"])?;
    site.succeed(&["detach"])?;
    site.ensure_gone()?;

    ensure!(first.stop()?.success());
    ensure!(shared || !std::path::Path::new("/run/ctguard").exists(), "the last one unmounts");
    Ok(())
}

/// Fails when pins under a path of the operator's own are not used, or not removed.
#[test]
fn a_pin_path_of_ones_own_is_used_and_left() -> Result<()> {
    if !require::root("a_pin_path_of_ones_own_is_used_and_left") {
        return Ok(());
    }
    let site = Site::build()?;
    let path = format!("/run/{}/guard", site.guarded().name());
    let daemon = site.start(&["run", "-i", WAN, "--pin-path", &path])?;
    ensure!(std::path::Path::new(&path).join("policy").exists());
    site.succeed(&["status", "--pin-path", &path])?;
    site.ctguard(&["status"])?.refusal(3)?;
    ensure!(daemon.stop()?.success());
    ensure!(!std::path::Path::new(&path).exists(), "{path} is gone");
    ensure!(site.xdp(WAN)?.is_none());

    let bad = site.ctguard(&["run", "-i", WAN, "--pin-path", "/run/a.b"])?;
    ensure!(bad.refusal(1)?.contains("dot"), "{bad:?}");
    Ok(())
}

/// Fails when a start that is refused for its pin path
/// leaves its lock file behind, because the path exists without a guard.
#[test]
fn a_pin_path_that_is_refused_leaves_no_lock() -> Result<()> {
    if !require::root("a_pin_path_that_is_refused_leaves_no_lock") {
        return Ok(());
    }
    let site = Site::build()?;
    let path = format!("/run/{}", site.guarded().name());
    std::fs::create_dir_all(format!("{path}/guard"))?;
    std::fs::write(format!("{path}/somebodys"), "file")?;
    let answer = site.ctguard(&["run", "-i", WAN, "--pin-path", &format!("{path}/guard")])?;
    std::fs::remove_dir_all(&path)?;
    let name = site.guarded().name().replace('-', "--");
    let lock = format!("{RUN_DIRECTORY}/run-{name}-guard.lock");
    let left = std::fs::remove_file(&lock).is_ok();
    ensure!(answer.refusal(1)?.contains("not empty"), "{answer:?}");
    ensure!(!left, "{lock} was left");
    Ok(())
}
