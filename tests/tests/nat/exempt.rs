//! Rules that exempt packets from tracking.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use ctguard_tests::{product::wait_for, require};

use crate::{
    counts::Counts,
    home::{Family, Home, TRACKING},
    talk,
};

const EXEMPT: &str = "table inet untracked {
    chain prerouting { type filter hook prerouting priority raw; udp dport 53 notrack; }
    chain output { type filter hook output priority raw; udp sport 53 notrack; }
}";

/// Fails when the daemon says nothing of rules that make each packet look like a new flow, or when
/// what it advises does not help.
#[test]
fn rules_that_exempt_packets_are_told_and_the_flow_cache_knows_their_flows() -> Result<()> {
    let test = "rules_that_exempt_packets_are_told_and_the_flow_cache_knows_their_flows";
    if !require::root(test) || !require::conntrack_functions(test) {
        return Ok(());
    }
    let home = Home::build(TRACKING)?;
    let site = &home.site;
    let daemon = home.guard("conntrack", &[])?;
    ensure!(!daemon.log()?.contains("exempt"), "nothing is exempt yet");
    home.load(EXEMPT)?;
    wait_for("the word of the daemon", || {
        let log = daemon.log()?;
        Ok(log.contains("rules in table untracked exempt packets from tracking").then_some(()))
    })?;
    ensure!(daemon.stop()?.success());

    let daemon = home.guard("flow-cache", &[])?;
    let before = Counts::read(site)?;
    let at = SocketAddr::new(Family::Ipv4.public(1), 53);
    let server = talk::udp(site.guarded(), at)?;
    let client = talk::udp(site.outside(), SocketAddr::new(Family::Ipv4.client(1), 0))?;
    talk::converse(&client, &server, at, 20)?;
    let counts = before.until_now(site)?;
    ensure!(counts.new_flows() == 1 && counts.admitted == 1, "{counts:?}");
    ensure!(daemon.stop()?.success());
    Ok(())
}
