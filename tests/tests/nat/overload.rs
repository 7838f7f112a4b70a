//! A source that holds more than its part of the table for long, and an operator who wants it denied.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ctguard_kernel::conntrack::testing::{Wanted, fill, status};
use ctguard_tests::{
    product::{WAN, wait_for},
    require,
    sysctl::HostSysctl,
};

use crate::home::{Family, Home, TRACKING};

const TCP: u8 = 6;
const MAX: u16 = 1000;

fn connections(home: &Home, client: IpAddr, protocol: u8, number: u16) -> Result<()> {
    let [client, server] = [client, Family::Ipv4.public(1)].map(|address| address.to_string());
    home.site.guarded().run(|| {
        fill((1..=number).map(|port| {
            Wanted::new(protocol, (&client, 5000 + port), (&server, 80), status::ASSURED)
        }));
        Ok(())
    })
}

/// Fails when a source above its part stays, or when one is denied for entries that anybody can have
/// made in its name.
#[test]
fn a_source_that_stays_above_its_part_is_denied_if_the_operator_wants_it() -> Result<()> {
    if !require::root("a_source_that_stays_above_its_part_is_denied_if_the_operator_wants_it") {
        return Ok(());
    }
    let home = Home::build(TRACKING)?;
    let site = &home.site;
    let _max = HostSysctl::set("net.netfilter.nf_conntrack_max", &MAX.to_string())?;
    let [holder, allowed] = [Family::Ipv4.client(1), Family::Ipv4.client(2)];
    connections(&home, holder, TCP, MAX / 2)?;
    connections(&home, allowed, TCP, MAX / 2 - 20)?;
    let denied = || site.succeed(&["deny", "list"]);

    let settings = ["--set", "overload.after=5s", "--set", "overload.for=60s"];
    let daemon = site.start(&[&["run", "-i", WAN][..], &settings].concat())?;
    site.succeed(&["allow", "add", &allowed.to_string()])?;
    wait_for("the source's end", || Ok(denied()?.contains(&holder.to_string()).then_some(())))?;
    let denied = denied()?;
    ensure!(!denied.contains(&allowed.to_string()), "{denied}");
    let events = site.succeed(&["events"])?;
    ensure!(events.contains(&format!("{holder} has held more than its part")), "{events}");
    ensure!(daemon.stop()?.success());
    Ok(())
}
