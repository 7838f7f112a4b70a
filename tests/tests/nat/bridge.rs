//! A guard on a port of a bridge, whose frames netfilter sees as a router's, or not at all.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    exec,
    netns::Namespace,
    product::{OUTSIDE, Site, WAN, wait_for},
    require, sysctl,
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
const BRIDGE: u8 = 1;
const GUEST: u8 = 3;
const GUEST_PORT: &str = "lan1";

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
        let inside = build(&site, true)?;
        let _daemon = home::guard(&site, detection, &[])?;
        flows_cross(&site, &inside).context(*detection)?;
    }
    Ok(())
}

/// Fails when packets that no table ever sees are charged: each one of a guest's connection.
#[test]
fn guests_of_a_bridge_that_netfilter_does_not_see_are_not_limited() -> Result<()> {
    let test = "guests_of_a_bridge_that_netfilter_does_not_see_are_not_limited";
    if !require::root(test) {
        return Ok(());
    }
    let site = Site::build()?;
    let inside = [build(&site, false)?, guest(&site)?];
    let guests = [(&inside[0], 2), (&inside[1], GUEST)];
    let unguarded = exchanges(&site, &guests)?;
    for detection in detections() {
        let daemon = home::guard(&site, detection, &[])?;
        let log = daemon.log()?;
        ensure!(log.contains("netfilter does not see what crosses br0"), "{log}");
        let before = Counts::read(&site)?;
        let is_as_fast = (0..TRIES).try_fold(false, |is_as_fast, _| -> Result<bool> {
            if is_as_fast {
                return Ok(true);
            }
            let guarded = exchanges(&site, &guests)?;
            println!("{detection}: {guarded} exchanges, {unguarded} without a guard");
            Ok(guarded * 10 >= unguarded * 7)
        })?;
        let counts = before.until_now(&site)?;
        ensure!(counts.new_flows() == 0, "{detection}: {counts:?}");
        ensure!(is_as_fast, "{detection}: slower than without a guard {TRIES} times");
        let [flooder, bridge] = [FLOOD, BRIDGE].map(|number| Family::Ipv4.inside(number));
        ensure_limited(&site, site.outside(), flooder, bridge).context("to the bridge itself")?;
        daemon.stop()?;
    }
    Ok(())
}

/// Fails when the daemon does not see that bridged frames are tracked from now on, or no longer.
#[test]
fn a_bridge_that_is_tracked_from_now_on_is_limited_from_now_on() -> Result<()> {
    let test = "a_bridge_that_is_tracked_from_now_on_is_limited_from_now_on";
    if !require::root(test) || !require::bridge_netfilter(test) {
        return Ok(());
    }
    let site = Site::build()?;
    let inside = build(&site, false)?;
    let daemon = home::guard(&site, detections()[0], &[])?;
    set_netfilter(&site, true)?;
    wait_for("the tracked bridge", || {
        Ok(daemon.log()?.contains("conntrack sees what crosses br0 (net.bridge").then_some(()))
    })?;
    let [flooder, host] = [FLOOD, 2].map(|number| Family::Ipv4.inside(number));
    ensure_limited(&site, site.outside(), flooder, host)?;
    set_netfilter(&site, false)?;
    wait_for("the bridge that is not tracked", || {
        let seen = daemon.log()?.rsplit("conntrack sees").next().map(str::to_owned);
        Ok(seen.is_some_and(|log| log.contains("does not see what crosses br0")).then_some(()))
    })?;
    let before = Counts::read(&site)?;
    exchanges(&site, &[(&inside, 2)])?;
    let counts = before.until_now(&site)?;
    ensure!(counts.new_flows() == 0, "{counts:?}");
    Ok(())
}

/// A loop of exchanges that somebody else's work slows down is tried again.
const TRIES: u32 = 5;

/// How many questions guests answer in a second: over connections that stand, over new ones, and over
/// UDP, each time from a new port.
fn exchanges(site: &Site, guests: &[(&Namespace, u8)]) -> Result<u32> {
    const MEASURED: Duration = Duration::from_secs(1);
    const REUSED: u32 = 20;
    let client = Family::Ipv4.inside(CUSTOMER);
    let servers: Vec<_> = guests
        .iter()
        .map(|&(guest, number)| {
            let address = SocketAddr::new(Family::Ipv4.inside(number), 53);
            Ok((address, talk::listen(guest, address)?, talk::udp(guest, address)?))
        })
        .collect::<Result<_>>()?;
    let (began, mut exchanges) = (Instant::now(), 0);
    while began.elapsed() < MEASURED {
        for (address, listener, answering) in &servers {
            let [asker, accepted] = talk::open(site.outside(), client, *address, listener)?;
            for _ in 0..REUSED {
                talk::tell(&asker, &accepted)?;
                talk::tell(&accepted, &asker)?;
            }
            let asker = talk::udp(site.outside(), SocketAddr::new(client, 0))?;
            talk::converse(&asker, answering, *address, 1)?;
            exchanges += REUSED + 1;
        }
    }
    Ok(exchanges)
}

/// Another guest beside the inside, on a port of its own.
fn guest(site: &Site) -> Result<Namespace> {
    let guest = Namespace::create("guest")?;
    let bridge = site.guarded();
    guest.ip(&[
        format!("link add {INSIDE} type veth peer name {GUEST_PORT} netns {}", bridge.name()),
        format!("link set {INSIDE} up"),
        format!("address add {}/24 dev {INSIDE}", Family::Ipv4.inside(GUEST)),
    ])?;
    bridge.ip(&[
        format!("link set {GUEST_PORT} master br0"),
        format!("link set {GUEST_PORT} up"),
        format!("address add {}/24 dev br0", Family::Ipv4.inside(BRIDGE)),
    ])?;
    Ok(guest)
}

fn set_netfilter(site: &Site, is_on: bool) -> Result<()> {
    const CALLS: [&str; 2] =
        ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];
    let value = if is_on { "1" } else { "0" };
    // A kernel without the module sees nothing.
    let there = CALLS.into_iter().filter(|key| is_on || sysctl::path(key).exists());
    site.guarded().sysctl(&there.map(|key| (key, value)).collect::<Vec<_>>())
}

fn build(site: &Site, netfilter: bool) -> Result<Namespace> {
    let (outside, bridge) = (site.outside(), site.guarded());
    let inside = Namespace::create("inside")?;
    inside.ip(&[format!("link add {INSIDE} type veth peer name {LAN} netns {}", bridge.name())])?;
    set_netfilter(site, netfilter)?;
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
