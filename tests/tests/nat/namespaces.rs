//! Guards of two namespaces, each with a table of its own.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ctguard_tests::{
    exec, frames,
    product::{OUTSIDE, Site, WAN},
    require,
};

use crate::{
    counts::{Counts, wait_for_verdicts},
    home::{self, Family, TRACKING, detections},
    talk,
};

const FLOWS: u16 = 20;

/// Fails when a guard asks another namespace's table, or shares what it knows with another guard.
#[test]
fn a_flow_of_one_namespace_is_new_in_another() -> Result<()> {
    if !require::root("a_flow_of_one_namespace_is_new_in_another") {
        return Ok(());
    }
    for detection in detections() {
        let site = Site::build()?;
        let neighbour = site.neighbour()?;
        let mut daemons = Vec::new();
        for site in [&site, &neighbour] {
            exec::run_with_input(site.guarded().command("nft").args(["-f", "-"]), TRACKING)?;
            site.outside().ip(&[format!("address add {}/24 dev {OUTSIDE}", server().ip())])?;
            site.guarded().ip(&[format!("address add {}/24 dev {WAN}", client(0).ip())])?;
            daemons.push(home::guard(site, detection, &[])?);
        }

        let server_socket = talk::udp(site.outside(), server())?;
        let before = Counts::read(&site)?;
        for flow in 0..FLOWS {
            let asking = talk::udp(site.guarded(), client(flow))?;
            talk::converse(&asking, &server_socket, server(), 1)?;
        }
        let counts = before.until_now(&site)?;
        ensure!(counts.new_flows() == 0, "{detection}: answers alone came: {counts:?}");

        // The same answers, in the namespace that asked nothing.
        let (wire, before) = (neighbour.wire()?, Counts::read(&neighbour)?);
        for flow in 0..FLOWS {
            let [from, to] = [server(), client(flow)];
            wire.send(&frames::udp((from.ip(), from.port()), (to.ip(), to.port()))?)?;
        }
        let counts = wait_for_verdicts(&neighbour, before, FLOWS.into())?;
        ensure!(counts.refused >= u64::from(FLOWS) / 2, "{detection}: {counts:?}");
    }
    Ok(())
}

fn server() -> SocketAddr {
    SocketAddr::new(address(254), 53)
}

fn client(flow: u16) -> SocketAddr {
    SocketAddr::new(address(1), 10_000 + flow)
}

fn address(number: u8) -> IpAddr {
    Family::Ipv4.public(number)
}
