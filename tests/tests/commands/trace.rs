//! `run --trace`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use ctguard_tests::{
    frames,
    product::{Site, WAN, wait_for},
    require,
};

/// Fails when the kernel rejects the program with its trace, or when a decision is not logged with
/// its outcome, addresses and port.
#[test]
fn the_trace_names_outcome_addresses_and_port() -> Result<()> {
    if !require::root("the_trace_names_outcome_addresses_and_port") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "--trace"])?;
    let wire = site.wire()?;
    let v4 = |flow: u8| {
        let address = |host| IpAddr::from(Ipv4Addr::new(192, 0, 2, host));
        (address(flow), address(254))
    };
    let v6 = |flow: u8| {
        let address = |host| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host));
        (address(u16::from(flow)), address(0x1000))
    };
    let mut flows = (1..250).flat_map(|flow| [v4(flow), v6(flow)]);
    let families: [fn(&str) -> bool; 2] =
        [|line| line.contains(": 192.0.2."), |line| line.contains(": 2001:db8::")];
    let lines = wait_for("a line for each family", || {
        for (source, destination) in flows.by_ref().take(2) {
            wire.send(&frames::udp((source, 1024), (destination, 9))?)?;
        }
        let log = daemon.log()?;
        let trace: Vec<_> = log.lines().filter(|line| line.starts_with("trace: ")).collect();
        let lines = families.map(|family| trace.iter().find(|line| family(line)).copied());
        Ok(lines[0].zip(lines[1]).map(|(v4, v6)| [v4.to_owned(), v6.to_owned()]))
    })?;
    for line in lines {
        ensure!(
            line.starts_with("trace: admitted") && line.ends_with(" protocol 17 port 9"),
            "{line}"
        );
    }
    ensure!(daemon.stop()?.success());
    site.ensure_gone()
}
