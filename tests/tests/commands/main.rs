//! Every verb of the command line on a guard, with its daemon and without.

mod bad_input;
mod capture;
mod config;
mod events;
mod first_run;
mod incidents;
mod lists;
mod output;
mod pause;
mod settings;
mod status;
mod top;
mod trace;
mod units;

use anyhow::{Context as _, Result};
use ctguard_tests::product::{Site, WAN};

/// Runs `test` while a daemon steers the guard, and again on what it left when it was killed.
fn with_and_without_daemon(test: impl Fn(&Site) -> Result<()>) -> Result<()> {
    // So high a fallback rate refuses nothing that the tests send.
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "--set", "fallback.rate=1000000"])?;
    test(&site).context("with a daemon")?;
    drop(daemon);
    site.succeed(&["detach"])?;

    let daemon = site.start(&["run", "-i", WAN, "--set", "fallback.rate=1000000"])?;
    daemon.kill()?;
    test(&site).context("without a daemon")
}
