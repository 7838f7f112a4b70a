//! `pause`: nothing is dropped for a while, whatever becomes of the daemon.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Site, WAN, wait_for},
    require,
    sources::try_one_source,
    wan,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::with_and_without_daemon;

const STRICT: [&str; 3] = ["set", "source.udp.rate=1", "source.udp.burst=1"];

fn is_paused(site: &Site) -> Result<bool> {
    let status = site.status()?;
    let pause = status.pointer("/pause").context("a pause or null")?;
    ensure!(pause.is_null() || status["dry_run"] == true, "{status}");
    Ok(!pause.is_null())
}

fn wait_for_the_end(site: &Site) -> Result<()> {
    wait_for("the end of the pause", || Ok((!is_paused(site)?).then_some(())))
}

/// The processes that commands left behind to end a pause of this guard.
fn left_behind(site: &Site) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_ours = String::from_utf8_lossy(&words)
            .contains(&format!("pause\0--follow\0--pin-path\0{}\0", site.pins().display()));
        let pid = process.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        found.extend(pid.filter(|_| is_ours));
    }
    Ok(found)
}

/// Fails when a pause drops, does not end, or changes what the operator set.
#[test]
fn a_pause_drops_nothing_and_ends_by_itself() -> Result<()> {
    if !require::root("a_pause_drops_nothing_and_ends_by_itself") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let wire = site.wire()?;
        let dropped = || wan::dropped_in_xdp(site.guarded(), WAN);
        site.succeed(&STRICT)?;
        let said = site.succeed(&["pause", "4s"])?;
        ensure!(said.starts_with("paused until ") && said.contains("nothing is dropped"), "{said}");
        ensure!(is_paused(site)?, "{}", site.status()?);
        let people = site.succeed(&["status"])?;
        ensure!(people.contains("paused until ") && people.contains(" s left)"), "{people}");
        ensure!(site.succeed(&["metrics"])?.contains("ctguard_paused 1\n"));
        ensure!(site.succeed(&["get", "dry-run"])?.trim() == "off");
        let before = dropped()?;
        ensure!(try_one_source(site, &wire, 1, 100)?.source > 0, "it counts");
        ensure!(dropped()? == before, "and drops nothing");

        wait_for_the_end(site)?;
        let refused = try_one_source(site, &wire, 2, 100)?.source;
        ensure!(refused > 0, "{refused}");
        wait_for("the drops in the device's counters", || {
            Ok((dropped()? - before == refused).then_some(()))
        })?;
        ensure!(site.succeed(&["metrics"])?.contains("ctguard_paused 0\n"));
        let events = site.succeed(&["events"])?;
        ensure!(events.contains(" paused until 20"), "{events}");
        ensure!(events.contains(" the pause is over; limits are in force"), "{events}");
        Ok(())
    })
}

/// Fails when a restart, a reload or `set` ends a pause, or its end the operator's own dry run.
#[test]
fn a_pause_gives_back_what_the_operator_set() -> Result<()> {
    if !require::root("a_pause_gives_back_what_the_operator_set") {
        return Ok(());
    }
    let site = Site::build()?;
    fs::create_dir_all(site.state())?;
    let file = site.state().join("ctguard.toml");
    fs::write(&file, format!("interfaces = [\"{WAN}\"]\ndry-run = true\n"))?;
    let file = file.to_str().context("a path")?;
    let daemon = site.start(&["run", "--config", file])?;
    let own = || Ok::<_, anyhow::Error>(site.succeed(&["get", "dry-run"])?.trim() == "on");
    let said = site.succeed(&["pause", "60s"])?;
    ensure!(said.contains("then the dry run goes on"), "{said}");
    site.succeed(&["pause", "2m"])?;
    let left = site.number("/pause/left_seconds")?;
    ensure!((100..=121).contains(&left), "the second replaces the first: {left}");
    ensure!(own()?);
    let said = site.succeed(&["save", "--config", file])?;
    ensure!(said.is_empty(), "{said}");
    site.succeed(&["reload"])?;
    ensure!(is_paused(&site)?);
    daemon.kill()?;
    let daemon = site.start(&["run", "--config", file])?;
    ensure!(is_paused(&site)?);
    let said = site.succeed(&["pause", "--end"])?;
    ensure!(said.contains("the dry run goes on"), "{said}");
    ensure!(own()? && site.status()?["dry_run"] == true && !is_paused(&site)?);

    site.succeed(&["pause", "60s"])?;
    site.succeed(&["set", "dry-run=off"])?;
    ensure!(is_paused(&site)? && !own()?);
    site.succeed(&["pause", "--end"])?;
    ensure!(site.status()?["dry_run"] == false);
    ensure!(site.ctguard(&["pause", "--end"])?.refusal(1)? == "there is no pause");
    ensure!(daemon.stop()?.success());
    site.ensure_gone()?;
    wait_for("the end of what was left behind", || Ok(left_behind(&site)?.is_empty().then_some(())))
}

/// Fails when a pause lasts for good because everybody who was to end it was killed.
#[test]
fn a_daemon_that_starts_after_the_deadline_ends_a_pause() -> Result<()> {
    if !require::root("a_daemon_that_starts_after_the_deadline_ends_a_pause") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    // Long enough for all until the deadline, also on a busy machine.
    site.succeed(&["pause", "10s"])?;
    daemon.kill()?;
    let behind = left_behind(&site)?;
    ensure!(behind.len() == 1, "{behind:?}");
    for pid in behind {
        kill_process(pid, Signal::KILL)?;
    }
    wait_for("the deadline", || Ok((site.number("/pause/left_seconds")? == 0).then_some(())))?;
    ensure!(is_paused(&site)?);
    let daemon = site.guard()?;
    wait_for_the_end(&site)?;
    // A thread of its own writes the log.
    wait_for("the line", || Ok(daemon.log()?.contains("the pause is over").then_some(())))?;
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}

/// Fails when a wrong command is taken, or its error is not one line with its code.
#[test]
fn a_pause_that_cannot_be_is_refused_in_one_line() -> Result<()> {
    if !require::root("a_pause_that_cannot_be_is_refused_in_one_line") {
        return Ok(());
    }
    let site = Site::build()?;
    ensure!(site.ctguard(&["pause", "10m"])?.refusal(3)?.starts_with("no guard is loaded at "));
    ensure!(site.ctguard(&["pause", "--end"])?.refusal(3)?.starts_with("no guard is loaded at "));
    ensure!(site.ctguard(&["pause", "2d"])?.refusal(2)?.starts_with("pause 2d: longer than a day"));
    ensure!(site.ctguard(&["pause"])?.code == Some(2));
    Ok(())
}
