//! A daemon that dies, and one that takes its guard over.

use std::{path::Path, time::Instant};

use anyhow::{Result, ensure};
use ctguard_tests::{
    product::{Site, WAN, wait_for},
    require,
    sources::{try_one_source, try_sources},
    sysctl::HostSysctl,
};
use serde_json::Value;

const PINS: &str = "/run/ctguard/of-two-namespaces";

/// New flows a second that the tests' fallback lets in. Strangers get two fifths of one half of it,
/// and of the room that was free, and all of the other half where nobody else was served lately.
const FALLBACK: &str = "fallback.rate=40/s";
const PART: f64 = 0.7;
const STRANGERS: f64 = PART * 40.0;
const MAX: f64 = 20_480.0;
const BURST: f64 = PART * 0.85 * MAX / 2.0;

/// Fails when a guard dies with its daemon, lets more in than the fallback rate, or when nobody
/// can ask it what it does.
#[test]
fn a_guard_whose_daemon_was_killed_guards_on_with_the_fallback_rate() -> Result<()> {
    if !require::root("a_guard_whose_daemon_was_killed_guards_on_with_the_fallback_rate") {
        return Ok(());
    }
    let _small = HostSysctl::set("net.netfilter.nf_conntrack_max", &MAX.to_string())?;
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "--set", FALLBACK])?;
    let program = site.xdp(WAN)?;
    ensure!(program.is_some(), "a program is on {WAN}");
    let wire = site.wire()?;
    let with_daemon = try_sources(&site, &wire, 1, 500)?;
    ensure!(with_daemon.admitted == 500, "a living daemon grants more: {with_daemon:?}");

    daemon.kill()?;
    ensure!(site.xdp(WAN)? == program, "the program is still there");
    let status = wait_for("the fallback rate", || {
        let status = site.status()?;
        Ok((status.pointer("/grant/fallback_active") == Some(&true.into())).then_some(status))
    })?;
    ensure!(status.pointer("/daemon/running") == Some(&Value::Bool(false)), "{status}");
    ensure!(status.pointer("/daemon/pid") == Some(&Value::Null), "{status}");
    ensure!(site.succeed(&["status"])?.contains("no daemon"), "people are told too");

    let began = Instant::now();
    let tried = try_sources(&site, &wire, 2, 5000)?;
    let most = BURST + STRANGERS * began.elapsed().as_secs_f64() + 2.0;
    println!("without a daemon: {tried:?}, at most {most:.0} expected");
    ensure!(tried.fallback > 0 && tried.admitted > 0, "{tried:?}");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand flows")]
    let admitted = tried.admitted as f64;
    ensure!(admitted <= most, "{tried:?} and not {most:.0} at most");
    Ok(())
}

/// Fails when a start over a guard that is there attaches anew, forgets what was counted or set,
/// or leaves an old program at work.
#[test]
fn a_new_daemon_takes_the_guard_over_in_place() -> Result<()> {
    if !require::root("a_new_daemon_takes_the_guard_over_in_place") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "--set", "source.udp.burst=7"])?;
    let wire = site.wire()?;
    try_one_source(&site, &wire, 1, 20)?;
    site.succeed(&["deny", "add", "203.0.113.0/24"])?;
    let [xdp, tcx] = site.links(WAN)?;
    daemon.kill()?;

    let _daemon = site.guard()?;
    let [next_xdp, next_tcx] = site.links(WAN)?;
    ensure!(xdp.id() == next_xdp.id() && tcx.id() == next_tcx.id(), "the same links");
    ensure!(xdp.program_id() != next_xdp.program_id(), "another program in the XDP link");
    ensure!(tcx.program_id() != next_tcx.program_id(), "another program in the TCX link");
    ensure!(site.xdp(WAN)? == Some(next_xdp.program_id().into()), "that is on the interface");
    ensure!(site.number("/counters/udp/seen")? >= 20, "counters go on");
    ensure!(site.succeed(&["get", "source.udp.burst"])?.trim() == "7", "settings stay");
    ensure!(site.succeed(&["deny", "list"])?.contains("203.0.113.0/24"), "lists stay");
    ensure!(site.number("/daemon/pid")? > 0, "and a daemon steers again");
    // Its buckets are no fresh ones: the source that spent its burst gets at most what it earned
    // since, while another gets a whole burst.
    ensure!(try_one_source(&site, &wire, 2, 7)?.admitted == 7, "a new source has its burst");
    Ok(())
}

/// Fails when a killed daemon's guard cannot be removed, or not wholly.
#[test]
fn what_a_killed_daemon_left_is_removed_by_detach() -> Result<()> {
    if !require::root("what_a_killed_daemon_left_is_removed_by_detach") {
        return Ok(());
    }
    for arguments in [&["run", "-i", WAN][..], &["run", "-i", WAN, "--egress-filter"]] {
        let site = Site::build()?;
        site.start(arguments)?.kill()?;
        ensure!(site.xdp(WAN)?.is_some());
        let answer = site.ctguard(&["detach"])?;
        ensure!(answer.code == Some(0), "{answer:?}");
        site.ensure_gone()?;
        site.ctguard(&["detach"])?.refusal(3)?;
    }
    Ok(())
}

/// Fails when nothing removes a guard at once while its daemon runs.
#[test]
fn detach_ends_the_daemon_if_it_is_asked_to() -> Result<()> {
    if !require::root("detach_ends_the_daemon_if_it_is_asked_to") {
        return Ok(());
    }
    for on_exit in ["keep", "detach"] {
        let site = Site::build()?;
        let _daemon = site.start(&["run", "-i", WAN, "--on-exit", on_exit])?;
        let refused = site.ctguard(&["detach"])?;
        ensure!(refused.refusal(1)?.contains("ctguard detach --stop"), "{refused:?}");
        let answer = site.ctguard(&["detach", "--stop"])?;
        ensure!(answer.code == Some(0) && answer.errors.contains("removed"), "{answer:?}");
        site.ensure_gone()?;
        site.ctguard(&["detach", "--stop"])?.refusal(3)?;
    }
    Ok(())
}

/// Fails when a network namespace that has the number of one that is gone, and so its pins, drops what was
/// denied there.
#[test]
fn a_guard_of_another_network_namespace_is_not_taken_over() -> Result<()> {
    if !require::root("a_guard_of_another_network_namespace_is_not_taken_over") {
        return Ok(());
    }
    let at_pins = |words: &[&'static str]| [words, &["--pin-path", PINS]].concat();
    let first = Site::build()?;
    first.start(&at_pins(&["run", "-i", WAN]))?.kill()?;
    first.succeed(&at_pins(&["deny", "add", "192.0.2.0/24"]))?;

    let second = first.neighbour()?;
    let daemon = second.start(&at_pins(&["run", "-i", WAN]))?;
    ensure!(daemon.log()?.contains("of another network namespace"), "{}", daemon.log()?);
    ensure!(second.succeed(&at_pins(&["deny", "list"]))?.is_empty());
    wait_for("its end", || Ok(first.xdp(WAN)?.is_none().then_some(())))?;
    ensure!(daemon.stop()?.success());
    ensure!(!Path::new(PINS).exists());
    Ok(())
}
