//! A guard on a port of a bridge, whose frames netfilter sees as a router's.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    exec,
    netns::Namespace,
    product::{OUTSIDE, Site, WAN},
    require,
};

use crate::{
    counts::{Counts, ensure_limited},
    home::{self, Family, LAN, detections},
    talk,
};

const INSIDE: &str = "srv0";
/// Both sides are in one network: these hosts of it are outside, the others inside.
const SERVER: u8 = 100;
const FLOOD: u8 = 101;
const CUSTOMER: u8 = 102;

const TRACKING: &str = "table inet filter {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
    }
}";

/// Fails when what crosses a bridge is not known where netfilter tracks it.
#[test]
fn a_bridge_port_knows_the_flows_that_cross_the_bridge() -> Result<()> {
    let test = "a_bridge_port_knows_the_flows_that_cross_the_bridge";
    if !require::root(test) || !require::bridge_netfilter(test) {
        return Ok(());
    }
    for detection in detections() {
        let site = Site::build()?;
        let inside = build(&site)?;
        let _daemon = home::guard(&site, detection, &[])?;
        flows_cross(&site, &inside).context(*detection)?;
    }
    Ok(())
}

fn build(site: &Site) -> Result<Namespace> {
    let (outside, bridge) = (site.outside(), site.guarded());
    let inside = Namespace::create("inside")?;
    inside.ip(&[format!("link add {INSIDE} type veth peer name {LAN} netns {}", bridge.name())])?;
    bridge.sysctl(&[
        ("net.bridge.bridge-nf-call-iptables", "1"),
        ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ])?;
    bridge.ip(&[
        "link add br0 type bridge forward_delay 0 mcast_snooping 0".to_owned(),
        format!("link set {WAN} master br0"),
        format!("link set {LAN} master br0"),
        format!("link set {LAN} up"),
        "link set br0 up".to_owned(),
    ])?;
    exec::run_with_input(bridge.command("nft").args(["-f", "-"]), TRACKING)?;
    for (host, device, numbers) in
        [(outside, OUTSIDE, &[SERVER, FLOOD, CUSTOMER][..]), (&inside, INSIDE, &[2])]
    {
        let addresses = numbers.iter().flat_map(|&number| {
            let [v4, v6] = Family::BOTH.map(|family| family.inside(number));
            [
                format!("address add {v4}/24 dev {device}"),
                format!("address add {v6}/64 dev {device} nodad"),
            ]
        });
        let up = format!("link set {device} up");
        host.ip(&addresses.chain([up]).collect::<Vec<_>>())?;
    }
    Ok(inside)
}

fn flows_cross(site: &Site, inside: &Namespace) -> Result<()> {
    for family in Family::BOTH {
        let before = Counts::read(site)?;
        let [host, server, customer] =
            [2, SERVER, CUSTOMER].map(|number| SocketAddr::new(family.inside(number), 53));
        let answering = talk::udp(site.outside(), server)?;
        for _ in 0..20 {
            let client = talk::udp(inside, SocketAddr::new(host.ip(), 0))?;
            talk::converse(&client, &answering, server, 2)?;
        }
        let listener = talk::listen(site.outside(), server)?;
        let [client, accepted] = talk::open(inside, host.ip(), server, &listener)?;
        talk::tell(&accepted, &client)?;
        let counts = before.until_now(site)?;
        ensure!(counts.new_flows() == 0, "{family:?}: answers alone came: {counts:?}");

        let listener = talk::listen(inside, host)?;
        let [client, accepted] = talk::open(site.outside(), customer.ip(), host, &listener)?;
        for _ in 0..5 {
            talk::tell(&client, &accepted)?;
            talk::tell(&accepted, &client)?;
        }
        let counts = before.until_now(site)?;
        ensure!(counts.admitted == 1 && counts.refused == 0, "{family:?}: {counts:?}");
        ensure_limited(site, site.outside(), family.inside(FLOOD), host.ip())?;
    }
    Ok(())
}
