//! A start in another XDP mode than that of the guard that it takes over.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::maps;
use ctguard_tests::{
    exec,
    product::{Site, WAN},
    require,
};
use serde_json::Value;

const MODES: [(&str, &str); 2] = [("native", "generic"), ("generic", "native")];

/// Starts a guard that is kept, and returns its program.
fn keep(site: &Site, device: &str, mode: &str) -> Result<Option<u64>> {
    site.start(&["run", "-i", device, "--mode", mode])?.kill()?;
    let program = site.xdp(device)?;
    ensure!(program.is_some(), "the guard stays");
    Ok(program)
}

/// The mode in which the kernel runs the program.
fn mode(site: &Site, device: &str) -> Result<&'static str> {
    let shown = exec::run(site.guarded().command("ip").args(["link", "show", device]))?;
    Ok(if shown.contains("xdpgeneric") { "generic" } else { "native" })
}

/// Fails when a changed `mode` in the configuration keeps the daemon from starting again, or when nobody is
/// told that the interface was open.
#[test]
fn a_start_in_another_mode_takes_the_guard_over_and_says_so() -> Result<()> {
    if !require::root("a_start_in_another_mode_takes_the_guard_over_and_says_so") {
        return Ok(());
    }
    let site = Site::build()?;
    for (former, next) in MODES {
        keep(&site, WAN, former)?;
        ensure!(mode(&site, WAN)? == former);
        let daemon = site.start(&["run", "-i", WAN, "--mode", next])?;
        let status = site.status()?;
        ensure!(status.pointer("/interfaces/0/mode") == Some(&next.into()), "{status}");
        ensure!(status.pointer("/interfaces/0/attached") == Some(&true.into()), "{status}");
        ensure!(mode(&site, WAN)? == next);
        let [xdp, _] = site.links(WAN)?;
        ensure!(Some(u64::from(xdp.program_id())) == site.xdp(WAN)?, "its link is pinned");
        let said = format!("{WAN} runs the program in {next} mode instead of {former} mode");
        ensure!(daemon.log()?.contains(&said), "{}", daemon.log()?);
        let events = site.succeed(&["events", "--json"])?;
        let event = events.lines().rev().find(|line| line.contains("\"mode_changed\""));
        let event: Value = serde_json::from_str(event.context("an event")?)?;
        println!("{event}");
        ensure!(event["from"] == former && event["to"] == next, "{event}");
        ensure!(event["open_seconds"].as_f64().is_some_and(|open| open < 1.0), "{event}");
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    Ok(())
}

/// Fails when a start in another mode that fails late leaves the interface open, or the guard without its
/// link: one that takes over the maps, and one that makes a guard beside it, because a map was lost.
#[test]
fn a_start_in_another_mode_that_fails_puts_the_former_program_back() -> Result<()> {
    if !require::root("a_start_in_another_mode_that_fails_puts_the_former_program_back") {
        return Ok(());
    }
    let site = Site::build()?;
    let record = site.run_file("timeouts.json");
    for (former, next) in MODES {
        for is_lost in [false, true] {
            let program = keep(&site, WAN, former)?;
            if is_lost {
                fs::remove_file(site.pins().join(maps::LIMITS))?;
            }
            fs::create_dir(&record)?;
            let answer = site.ctguard(&["run", "-i", WAN, "--mode", next]);
            fs::remove_dir(&record)?;
            ensure!(answer?.errors.contains("timeouts.json"), "it fails for the record");
            ensure!(site.xdp(WAN)? == program && mode(&site, WAN)? == former, "it is put back");
            let [xdp, _] = site.links(WAN)?;
            ensure!(Some(u64::from(xdp.program_id())) == program, "and pinned");
            let next_pins = format!("{}_next", site.pins().display());
            ensure!(!fs::exists(&next_pins)?, "{next_pins} is left");
            site.succeed(&["detach"])?;
            site.ensure_gone()?;
        }
    }
    Ok(())
}

/// Fails when an interface is open after a start in native mode whose driver refuses it. The kernel takes no
/// native program on a veth with fewer queues than its peer sends on (`veth_xdp_set`).
#[test]
fn a_driver_that_refuses_the_other_mode_leaves_the_former_one() -> Result<()> {
    if !require::root("a_driver_that_refuses_the_other_mode_leaves_the_former_one") {
        return Ok(());
    }
    let site = Site::build()?;
    let (one, two) = ("numrxqueues 1 numtxqueues 1", "numrxqueues 2 numtxqueues 2");
    site.guarded().ip(&[
        format!("link add few0 {one} type veth peer name many0 {two}"),
        "link set few0 up".to_owned(),
        "link set many0 up".to_owned(),
    ])?;
    let program = keep(&site, "few0", "generic")?;
    let answer = site.ctguard(&["run", "-i", "few0", "--mode", "native"])?;
    let line = answer.refusal(1)?;
    ensure!(line.contains("the driver of few0") && line.contains("use --mode generic"), "{line}");
    ensure!(site.xdp("few0")? == program && mode(&site, "few0")? == "generic");
    let daemon = site.start(&["run", "-i", "few0", "--mode", "generic"])?;
    ensure!(!daemon.log()?.contains("instead of"), "{}", daemon.log()?);
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}
