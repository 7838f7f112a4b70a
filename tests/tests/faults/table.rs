//! A table whose maximum changes under the guard.

use anyhow::{Result, ensure};
use ctguard_tests::{
    product::{Site, WAN, wait_for},
    require,
    sources::try_sources,
    sysctl::HostSysctl,
};

const MAX: &str = "net.netfilter.nf_conntrack_max";

/// What a guard may grant at most of a table of 100, its target being 85 %.
const MOST_OF_100: u64 = 85;

/// Fails when the guard goes on granting by a maximum that is no more. That one below the count
/// grants nothing is tested where the count is made up (`control/controller`).
#[test]
fn a_maximum_that_changes_is_followed() -> Result<()> {
    if !require::root("a_maximum_that_changes_is_followed") {
        return Ok(());
    }
    let site = Site::build()?;
    let _large = HostSysctl::set(MAX, "65536")?;
    let _daemon = site.start(&["run", "-i", WAN])?;
    let wire = site.wire()?;
    ensure!(try_sources(&site, &wire, 1, 500)?.admitted == 500);
    ensure!(site.number("/grant/remaining")? > 500);

    let below = HostSysctl::set(MAX, "100")?;
    wait_for("a guard that knows the lower maximum", || {
        let knows = site.number("/conntrack/max")? == 100;
        Ok((knows && site.number("/grant/remaining")? <= MOST_OF_100).then_some(()))
    })?;
    drop(below);
    wait_for("a guard that knows the higher one", || {
        Ok((site.number("/grant/remaining")? > 500).then_some(()))
    })?;
    ensure!(try_sources(&site, &wire, 2, 100)?.admitted == 100);
    Ok(())
}
