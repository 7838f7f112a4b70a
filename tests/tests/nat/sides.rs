//! One guard on both sides of a router, with ceilings of their own.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::require;

use crate::{
    counts::{Counts, ensure_limited, wait_for_verdicts},
    home::{Family, Home, LAN, detections},
    talk,
};

const MASQUERADE: &str = "table inet nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname wan0 masquerade
    }
}";

const SERVER: u8 = 1;
const FLOOD: u8 = 2;
const HOST: u8 = 2;
/// Inside, behind the infected host's address of either family.
const INFECTED: u8 = 3;

/// New flows that a host of the inside may open at once.
const BURST: u64 = 30;
/// What it tries.
const TRIED: u16 = 200;

/// Fails when a host inside may flood, when the outside's ceiling holds inside, or when an answer
/// is charged on its way through either interface.
#[test]
fn both_sides_are_limited_each_by_its_own_ceiling_and_answers_pass() -> Result<()> {
    if !require::root("both_sides_are_limited_each_by_its_own_ceiling_and_answers_pass") {
        return Ok(());
    }
    for detection in detections() {
        let home = Home::build(MASQUERADE)?;
        let burst = format!("interface.lan0.source.udp.burst={BURST}");
        let _daemon = home.guard(detection, &["-i", LAN, "--set", &burst])?;
        // One /64 is one source: inside there is a single one.
        for (family, infected) in [(Family::Ipv4, INFECTED), (Family::Ipv6, HOST)] {
            let site = &home.site;
            answers_pass(&home, family).with_context(|| format!("{detection}, {family:?}"))?;
            ensure_limited(site, site.outside(), family.client(FLOOD), family.public(1))?;
            infected_host(&home, family, infected)
                .with_context(|| format!("{detection}, {family:?}"))?;
        }
    }
    Ok(())
}

fn answers_pass(home: &Home, family: Family) -> Result<()> {
    const FLOWS: u16 = 20;
    // Ports that the kernel picks may repeat, and a flow that repeats is known.
    const FIRST_PORT: u16 = 20_000;
    let before = Counts::read(&home.site)?;
    let at = SocketAddr::new(family.client(SERVER), 53);
    let server = talk::udp(home.site.outside(), at)?;
    for flow in 0..FLOWS {
        let from = SocketAddr::new(family.inside(HOST), FIRST_PORT + flow);
        let client = talk::udp(&home.inside, from)?;
        talk::converse(&client, &server, at, 3)?;
    }
    let counts = before.until_now(&home.site)?;
    ensure!(
        counts.admitted == u64::from(FLOWS) && counts.refused == 0,
        "each flow once: {counts:?}"
    );
    Ok(())
}

fn infected_host(home: &Home, family: Family, host: u8) -> Result<()> {
    let before = Counts::read(&home.site)?;
    let began = std::time::Instant::now();
    let bot = talk::udp(&home.inside, SocketAddr::new(family.inside(host), 0))?;
    for port in 1000..1000 + TRIED {
        bot.send_to(b"flood", SocketAddr::new(family.client(SERVER), port))?;
    }
    let counts = wait_for_verdicts(&home.site, before, TRIED.into())?;
    let most = BURST + 2 + began.elapsed().as_secs();
    ensure!(counts.admitted <= most, "{most} at most may be let in: {counts:?}");
    Ok(())
}
