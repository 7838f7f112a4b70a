//! Entries that no packet made: what `conntrackd -c` commits after a failover.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use ctguard_kernel::conntrack::testing::{Wanted, fill, status};
use ctguard_tests::{product::wait_for, require};

use crate::{
    counts::Counts,
    home::{Family, Home, TRACKING, wait_until_known},
    talk,
};

const UDP: u8 = 17;
/// The flow that goes on, and others beside it.
const PORT: u16 = 6000;
const OTHERS: u16 = 3000;

/// Fails when flows that another machine handed over are charged as new ones for up to a minute.
#[test]
fn flows_that_were_committed_after_a_failover_are_known_at_once() -> Result<()> {
    let test = "flows_that_were_committed_after_a_failover_are_known_at_once";
    if !require::root(test) || !require::conntrack_functions(test) {
        return Ok(());
    }
    for is_asked in [false, true] {
        let home = Home::build(TRACKING)?;
        let site = &home.site;
        let daemon = home.guard("conntrack", &[])?;
        // It compares the table each second.
        std::thread::sleep(Duration::from_millis(1500));
        let [client, public] = [Family::Ipv4.client(1), Family::Ipv4.public(1)];
        let others = if is_asked { 0 } else { OTHERS };
        site.guarded().run(|| {
            fill((0..=others).map(|more| entry(client, public, PORT + more)));
            Ok(())
        })?;
        if is_asked {
            site.succeed(&["learn"])?;
        }
        wait_for("the word of the daemon", || {
            Ok(daemon.log()?.contains("reading the table again").then_some(()))
        })?;

        let (before, server) = (Counts::read(site)?, SocketAddr::new(public, 53));
        // The filter is asked again once it has held the table.
        for _ in 0..2 {
            let socket = talk::udp(site.outside(), SocketAddr::new(client, PORT))?;
            for _ in 0..5 {
                socket.send_to(b"goes on", server)?;
            }
            wait_for("the packets", || Ok((before.until_now(site)?.known >= 5).then_some(())))?;
            wait_until_known(site)?;
            std::thread::sleep(Duration::from_millis(1500));
        }
        let counts = before.until_now(site)?;
        ensure!(counts.new_flows() == 0 && counts.known == 10, "asked {is_asked}: {counts:?}");
        ensure!(daemon.stop()?.success());
        let answer = site.ctguard(&["learn"])?;
        ensure!(answer.refusal(3)?.contains("ctguard run"), "{answer:?}");
    }
    Ok(())
}

fn entry(client: IpAddr, server: IpAddr, port: u16) -> Wanted {
    let [client, server] = [client, server].map(|address| address.to_string());
    Wanted::new(UDP, (&client, port), (&server, 53), status::ASSURED)
}
