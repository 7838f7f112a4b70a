//! What the router itself asks and serves.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::require;

use crate::{
    counts::{Counts, ensure_limited},
    home::{Family, Home, TRACKING, detections},
    talk,
};

const SERVER: u8 = 1;
const FLOOD: u8 = 2;
const ADMINISTRATOR: u8 = 3;

/// Fails when answers to the router's own queries are charged, or what follows in a connection to
/// it.
#[test]
fn what_the_router_asks_is_answered_and_what_it_serves_is_reached() -> Result<()> {
    if !require::root("what_the_router_asks_is_answered_and_what_it_serves_is_reached") {
        return Ok(());
    }
    for detection in detections() {
        let home = Home::build(TRACKING)?;
        let _daemon = home.guard(detection, &[])?;
        for family in Family::BOTH {
            asks_and_serves(&home, family).with_context(|| format!("{detection}, {family:?}"))?;
        }
    }
    Ok(())
}

fn asks_and_serves(home: &Home, family: Family) -> Result<()> {
    let site = &home.site;
    let before = Counts::read(site)?;
    let public = family.public(1);
    let at = SocketAddr::new(family.client(SERVER), 53);
    let server = talk::udp(site.outside(), at)?;
    for _ in 0..20 {
        let resolver = talk::udp(site.guarded(), SocketAddr::new(public, 0))?;
        talk::converse(&resolver, &server, at, 1)?;
    }
    talk::ping(site.guarded(), at.ip())?;
    let counts = before.until_now(site)?;
    ensure!(counts.new_flows() == 0, "answers alone came: {counts:?}");

    let service = SocketAddr::new(public, 22);
    let listener = talk::listen(site.guarded(), service)?;
    let administrator = family.client(ADMINISTRATOR);
    let [client, server] = talk::open(site.outside(), administrator, service, &listener)?;
    for _ in 0..10 {
        talk::tell(&client, &server)?;
        talk::tell(&server, &client)?;
    }
    let counts = before.until_now(site)?;
    ensure!(counts.admitted == 1 && counts.refused == 0, "one connection came: {counts:?}");
    ensure_limited(site, site.outside(), family.client(FLOOD), public)
}
