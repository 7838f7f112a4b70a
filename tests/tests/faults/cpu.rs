//! A processor that is taken offline, and comes back.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{product::Site, require, sources::try_sources};

const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

/// A processor that is not there until this is dropped.
struct Offline;

impl Offline {
    fn take() -> Result<Self> {
        fs::write(ONLINE, "0").context("cannot take a processor offline")?;
        Ok(Self)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        let began = Instant::now();
        while let Err(error) = fs::write(ONLINE, "1") {
            eprintln!("cannot bring a processor back: {error}");
            if began.elapsed() > Duration::from_secs(10) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn ensure_steered(site: &Site) -> Result<()> {
    let falls_back = site.status()?.pointer("/grant/fallback_active").cloned();
    ensure!(falls_back == Some(false.into()), "the daemon does not grant: {falls_back:?}");
    Ok(())
}

/// Fails when the daemon dies with a processor, loses what it counted there, or grants nothing any more.
#[test]
fn a_processor_that_goes_offline_takes_neither_daemon_nor_counts_along() -> Result<()> {
    let test = "a_processor_that_goes_offline_takes_neither_daemon_nor_counts_along";
    if !require::root(test) || !require::processor_that_may_go(test, ONLINE) {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    let wire = site.wire()?;
    let try_all = |round| -> Result<()> {
        let tried = try_sources(&site, &wire, round, 300)?;
        ensure!(tried.admitted == 300, "round {round}: {tried:?}");
        Ok(())
    };
    try_all(1)?;
    for round in 1..=2 {
        let offline = Offline::take()?;
        try_all(2 * round)?;
        // Longer than the program waits for a daemon.
        thread::sleep(Duration::from_secs(3));
        ensure_steered(&site)?;
        drop(offline);
        try_all(2 * round + 1)?;
        ensure_steered(&site)?;
    }
    // A daemon that starts while it is away finds it when it comes back.
    ensure!(site.number("/counters/udp/seen")? >= 1500, "what both processors counted");
    daemon.kill()?;
    let offline = Offline::take()?;
    let daemon = site.guard()?;
    try_all(6)?;
    drop(offline);
    try_all(7)?;
    ensure!(site.number("/counters/udp/seen")? >= 2100);
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}
