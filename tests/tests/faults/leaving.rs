//! How a guard ends: removed, or kept.

use anyhow::{Result, ensure};
use aya::programs::loaded_programs;
use ctguard_tests::{
    exec,
    product::{Site, WAN, wait_for},
    require,
    sources::try_sources,
    sysctl::HostSysctl,
};

/// Fails when anything of a guard outlives its daemon's ordinary end: a pin, a program, a filter.
#[test]
fn a_daemon_that_ends_takes_everything_along() -> Result<()> {
    if !require::root("a_daemon_that_ends_takes_everything_along") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    let programs = site.links(WAN)?.map(|link| link.program_id());
    ensure!(daemon.stop()?.success(), "an end on SIGTERM is a success");
    site.ensure_gone()?;
    wait_for("the programs' end", || {
        let alive = loaded_programs()
            .filter_map(Result::ok)
            .any(|program| programs.contains(&program.id()));
        Ok((!alive).then_some(()))
    })
}

/// Fails when the clsact filter of kernels without TCX is left, or a clsact that was there before
/// is taken along.
#[test]
fn a_clsact_goes_only_with_who_made_it() -> Result<()> {
    if !require::root("a_clsact_goes_only_with_who_made_it") {
        return Ok(());
    }
    let site = Site::build()?;
    let filtered = ["run", "-i", WAN, "--egress-filter"];
    let daemon = site.start(&filtered)?;
    ensure!(site.qdiscs(WAN)?.contains("clsact"), "the filter needs one");
    ensure!(daemon.stop()?.success());
    site.ensure_gone()?;

    exec::run(site.guarded().command("tc").args(["qdisc", "add", "dev", WAN, "clsact"]))?;
    let daemon = site.start(&filtered)?;
    ensure!(daemon.stop()?.success());
    ensure!(site.qdiscs(WAN)?.contains("clsact"), "it was there before");
    let filters =
        exec::run(site.guarded().command("tc").args(["filter", "show", "dev", WAN, "egress"]))?;
    ensure!(filters.trim().is_empty(), "a filter is left: {filters}");
    ensure!(site.xdp(WAN)?.is_none());
    Ok(())
}

/// Fails when `--on-exit keep` removes the guard, or keeps one that does not limit.
#[test]
fn a_guard_that_is_kept_limits_on() -> Result<()> {
    if !require::root("a_guard_that_is_kept_limits_on") {
        return Ok(());
    }
    // Half of the free room may be spent at once.
    let _small = HostSysctl::set("net.netfilter.nf_conntrack_max", "512")?;
    let site = Site::build()?;
    let daemon =
        site.start(&["run", "-i", WAN, "--on-exit", "keep", "--set", "fallback.rate=4"])?;
    let program = site.xdp(WAN)?;
    ensure!(daemon.stop()?.success());
    ensure!(site.xdp(WAN)? == program, "the program stays");
    wait_for("the fallback rate", || {
        let active = site.status()?.pointer("/grant/fallback_active") == Some(&true.into());
        Ok(active.then_some(()))
    })?;
    let tried = try_sources(&site, &site.wire()?, 1, 500)?;
    ensure!(tried.fallback > 0, "{tried:?}");

    let daemon = site.guard()?;
    ensure!(site.number("/counters/udp/seen")? >= 500, "it was taken over");
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}
