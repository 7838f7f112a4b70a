//! Source and destination translation.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{product::WAN, require};

use crate::{
    counts::{Counts, ensure_limited},
    home::{Family, Home, LAN, detections},
    talk,
};

/// Where the outside's server is, and a forwarded service.
const SERVER_PORT: u16 = 53;
const FORWARDED_PORT: u16 = 8080;
/// Where the forwarded service is inside.
const SERVICE_PORT: u16 = 80;

/// Each test's clients outside.
const SERVER: u8 = 1;
const FLOOD: u8 = 2;
const CUSTOMER: u8 = 3;

/// Inside: who serves and who asks.
const INNER_SERVER: u8 = 2;
const INNER_CLIENT: u8 = 3;

const MASQUERADE: &str = "table inet nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname wan0 masquerade
    }
}";

const POOL: &str = "table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname wan0 snat to 198.51.100.20-198.51.100.23
    }
}
table ip6 nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname wan0 snat to 2001:db8::20-2001:db8::23
    }
}";

/// The public addresses, from both sides, and with hairpins: what the inside sends there comes
/// back to it from the router.
const FORWARD: &str = "table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        ip daddr 198.51.100.1 meta l4proto { tcp, udp } th dport 8080 dnat to 10.0.0.2:80
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname wan0 masquerade
        oifname lan0 ip saddr 10.0.0.0/24 masquerade
    }
}
table ip6 nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 8080 dnat to [2001:db8:1::2]:80
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname wan0 masquerade
        oifname lan0 ip6 saddr 2001:db8:1::/64 masquerade
    }
}";

/// Fails when an answer to a masqueraded flow is charged, or unsolicited packets are not limited.
#[test]
fn answers_to_masqueraded_flows_pass_and_unsolicited_packets_are_limited() -> Result<()> {
    let test = "answers_to_masqueraded_flows_pass_and_unsolicited_packets_are_limited";
    if !require::root(test) {
        return Ok(());
    }
    with_translation(MASQUERADE, |family| family.public(1))
}

/// Fails when flows behind a pool's addresses are not known by them.
#[test]
fn answers_to_the_addresses_of_a_pool_pass() -> Result<()> {
    if !require::root("answers_to_the_addresses_of_a_pool_pass") {
        return Ok(());
    }
    with_translation(POOL, |family| match family {
        Family::Ipv4 => family.public(20),
        Family::Ipv6 => family.public(0x20),
    })
}

fn with_translation(rules: &str, public: impl Fn(Family) -> IpAddr) -> Result<()> {
    for detection in detections() {
        let home = Home::build(rules)?;
        let pool = ["20", "21", "22", "23"].map(|last| {
            [
                format!("address add 198.51.100.{last}/24 dev {WAN}"),
                format!("address add 2001:db8::{last}/64 dev {WAN} nodad"),
            ]
        });
        home.site.guarded().ip(pool.as_flattened())?;
        let _daemon = home.guard(detection, &[])?;
        for family in Family::BOTH {
            let context = || format!("{detection}, {family:?}");
            flows_from_inside(&home, family).with_context(context)?;
            let [source, to] = [family.client(FLOOD), public(family)];
            ensure_limited(&home.site, home.site.outside(), source, to).with_context(context)?;
        }
    }
    Ok(())
}

/// Fifty flows from inside, all answered when all are open, and an echo.
fn flows_from_inside(home: &Home, family: Family) -> Result<()> {
    const FLOWS: usize = 50;
    let site = &home.site;
    let before = Counts::read(site)?;
    let at = SocketAddr::new(family.client(SERVER), SERVER_PORT);
    let server = talk::udp(site.outside(), at)?;
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        let client = talk::udp(&home.inside, SocketAddr::new(family.inside(INNER_CLIENT), 0))?;
        let from = talk::ask(&client, &server, at)?;
        ensure!(from.ip() != family.inside(INNER_CLIENT), "the source was translated");
        flows.push((client, from));
    }
    for (client, from) in &flows {
        talk::answer(&server, client, *from)?;
    }
    talk::ping(&home.inside, family.client(SERVER))?;
    let counts = before.until_now(site)?;
    ensure!(counts.new_flows() == 0 && counts.known >= 50, "every answer is known: {counts:?}");
    Ok(())
}

/// Fails when a client of a forwarded service is charged for more than opening its flows, or when
/// others are let in with it.
#[test]
fn a_forwarded_service_works_and_others_are_limited() -> Result<()> {
    if !require::root("a_forwarded_service_works_and_others_are_limited") {
        return Ok(());
    }
    for detection in detections() {
        let home = Home::build(FORWARD)?;
        let _daemon = home.guard(detection, &[])?;
        for family in Family::BOTH {
            let context = || format!("{detection}, {family:?}");
            let customer = family.client(CUSTOMER);
            use_service(&home, (home.site.outside(), customer), family).with_context(context)?;
            let [source, to] = [family.client(FLOOD), family.public(1)];
            ensure_limited(&home.site, home.site.outside(), source, to).with_context(context)?;
        }
    }
    Ok(())
}

/// Fails when what a guarded inner interface sends to the router's public address, and gets back
/// from it, is not one flow.
#[test]
fn a_hairpin_works_through_a_guarded_inner_interface() -> Result<()> {
    if !require::root("a_hairpin_works_through_a_guarded_inner_interface") {
        return Ok(());
    }
    for detection in detections() {
        let home = Home::build(FORWARD)?;
        let _daemon = home.guard(detection, &["-i", LAN])?;
        for family in Family::BOTH {
            let client = family.inside(INNER_CLIENT);
            use_service(&home, (&home.inside, client), family)
                .with_context(|| format!("{detection}, {family:?}"))?;
        }
    }
    Ok(())
}

/// A connection to the service and a conversation with it, which are two new flows in all.
fn use_service(
    home: &Home,
    (namespace, source): (&ctguard_tests::netns::Handle, IpAddr),
    family: Family,
) -> Result<()> {
    let before = Counts::read(&home.site)?;
    let to = SocketAddr::new(family.public(1), FORWARDED_PORT);
    let at = SocketAddr::new(family.inside(INNER_SERVER), SERVICE_PORT);

    let listener = talk::listen(&home.inside, at)?;
    let [client, server] = talk::open(namespace, source, to, &listener)?;
    for _ in 0..10 {
        talk::tell(&client, &server)?;
        talk::tell(&server, &client)?;
    }
    let server = talk::udp(&home.inside, at)?;
    let client = talk::udp(namespace, SocketAddr::new(source, 0))?;
    talk::converse(&client, &server, to, 10)?;
    let counts = before.until_now(&home.site)?;
    ensure!(counts.admitted == 2 && counts.refused == 0, "two flows were opened: {counts:?}");
    ensure!(counts.known >= 18, "the rest was known: {counts:?}");
    Ok(())
}
