//! `conntrack -F`: nothing is known any longer.

use std::{io::Write as _, net::SocketAddr};

use anyhow::{Result, ensure};
use ctguard_tests::{product::wait_for, require, table};

use crate::{
    counts::Counts,
    home::{Family, Home, TRACKING},
    talk,
};

/// What passes the guard ends here, before it could make an entry.
const NOTHING_ENTERS: &str = "table inet closed {
    chain prerouting {
        type filter hook prerouting priority raw - 10;
        iifname wan0 meta l4proto { tcp, udp } drop
    }
}";
const OPEN_AGAIN: &str = "delete table inet closed";

/// Fails when flows of a table that was flushed stay known.
#[test]
fn a_flushed_table_is_noticed() -> Result<()> {
    let test = "a_flushed_table_is_noticed";
    if !require::root(test) || !require::conntrack_functions(test) {
        return Ok(());
    }
    let home = Home::build(TRACKING)?;
    let site = &home.site;
    let _daemon = home.guard("conntrack", &[])?;
    for family in Family::BOTH {
        let [at, public] = [family.client(1), family.public(1)];
        let at = SocketAddr::new(at, 53);
        let server = talk::udp(site.outside(), at)?;
        let client = talk::udp(site.guarded(), SocketAddr::new(public, 0))?;
        let from = talk::ask(&client, &server, at)?;
        let listener = talk::listen(site.outside(), at)?;
        let [near, far] = talk::open(site.guarded(), public, at, &listener)?;

        let before = Counts::read(site)?;
        for _ in 0..3 {
            talk::answer(&server, &client, from)?;
            talk::tell(&far, &near)?;
        }
        let counts = before.until_now(site)?;
        ensure!(counts.new_flows() == 0, "both are known: {counts:?}");

        // For a second or so what was found just before passes still.
        home.load(NOTHING_ENTERS)?;
        table::flush(site.guarded())?;
        let before = Counts::read(site)?;
        wait_for("an answer of a flushed flow to be charged", || {
            server.send_to(b"answer", from)?;
            Ok((before.until_now(site)?.new_flows() > 0).then_some(()))
        })?;

        let before = Counts::read(site)?;
        far.set_nonblocking(true)?;
        wait_for("a segment of a flushed connection to be charged", || {
            // It is sent again and again when the window is full.
            let _ = (&far).write(b"hello");
            Ok((before.until_now(site)?.tcp > 0).then_some(()))
        })?;
        home.load(OPEN_AGAIN)?;
    }
    Ok(())
}
