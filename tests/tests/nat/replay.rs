//! Tuples that were admitted once, sent again when conntrack has forgotten them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{WAN, wait_for},
    require, table,
};

use crate::{
    counts::{Counts, wait_for_verdicts},
    home::{Family, Home, detections},
    talk,
};

/// Conntrack keeps UDP for three seconds, and so does the flow cache.
const TIMEOUTS: [(&str, &str); 2] = [
    ("net.netfilter.nf_conntrack_udp_timeout", "3"),
    ("net.netfilter.nf_conntrack_udp_timeout_stream", "3"),
];

/// All is forwarded to where nobody answers.
const TRACKING: &str = "table inet filter {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
    }
}";

const TUPLES: u16 = 200;
const AMPLE: [&str; 8] = [
    "--set",
    "interface.wan0.source.udp.rate=100000",
    "--set",
    "interface.wan0.source.udp.burst=100000",
    "--set",
    "source.udp.rate=1",
    "--set",
    "source.udp.burst=1",
];

/// Fails when a tuple stays known for longer than conntrack knows it, so that whoever collected
/// tuples could make entries with them past every limit.
#[test]
fn collected_tuples_are_charged_again_when_conntrack_has_forgotten_them() -> Result<()> {
    if !require::root("collected_tuples_are_charged_again_when_conntrack_has_forgotten_them") {
        return Ok(());
    }
    for detection in detections() {
        replayed(detection).context(*detection)?;
    }
    Ok(())
}

fn replayed(detection: &str) -> Result<()> {
    let home = Home::build(TRACKING)?;
    let site = &home.site;
    site.guarded().sysctl(&TIMEOUTS)?;
    let _daemon = home.guard(detection, &AMPLE)?;

    let before = Counts::read(site)?;
    send(&home)?;
    let counts = wait_for_verdicts(site, before, TUPLES.into())?;
    ensure!(counts.admitted == u64::from(TUPLES), "all were let in: {counts:?}");
    wait_for("an empty table", || {
        table::remove_expired(site.guarded())?;
        Ok((table::count(site.guarded())? == 0).then_some(()))
    })?;
    if detection == "flow-cache" {
        // It counts in whole seconds or so, and may end a flow later than conntrack by one.
        std::thread::sleep(std::time::Duration::from_secs(3));
    }

    for setting in ["rate", "burst"] {
        site.succeed(&["set", &format!("interface.{WAN}.source.udp.{setting}=default")])?;
    }
    let before = Counts::read(site)?;
    send(&home)?;
    let counts = wait_for_verdicts(site, before, TUPLES.into())?;
    ensure!(counts.known == 0, "none is known: {counts:?}");
    ensure!(counts.refused >= u64::from(TUPLES) / 2, "the ceiling holds: {counts:?}");
    Ok(())
}

/// One datagram of each tuple, to ports inside that are closed.
fn send(home: &Home) -> Result<()> {
    let [source, destination] = [Family::Ipv4.client(1), Family::Ipv4.inside(2)];
    let sender = talk::udp(home.site.outside(), SocketAddr::new(source, 53))?;
    for port in 2000..2000 + TUPLES {
        sender.send_to(b"hello", SocketAddr::new(destination, port))?;
    }
    Ok(())
}
