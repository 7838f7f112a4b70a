//! `ctguard doctor` before tables that are full for real, each for another reason.

mod causes;
mod cost;
mod interfaces;
mod machine;
mod rules;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    cpus::Cpus,
    flood::Flood,
    netns::Handle,
    product,
    recipe::{FloodKind, Rate},
    require,
    router::Network,
};
use serde_json::Value;

/// What doctor may name as the cause; it names one.
const CAUSES: [&str; 10] = [
    "scan",
    "syn-flood",
    "udp-flood",
    "dns-loop",
    "idle-connections",
    "close-wait",
    "one-source",
    "nat-ports",
    "insert-failed",
    "expectations-full",
];

/// The inside host that misbehaves.
const INFECTED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));

fn is_possible(test: &str) -> bool {
    require::root(test) && require::release_binary(test)
}

/// A datagram from each of so many ports of an inside host: a read request of TFTP, to whoever
/// speaks it.
fn ask(from: &Handle, ports: Range<u16>, to: SocketAddr) -> Result<()> {
    from.run(|| {
        for port in ports {
            let socket = UdpSocket::bind((INFECTED, port)).context("a port is taken")?;
            // What was refused before is told here, and is no concern of ours.
            let _ = socket.send_to(b"\0\x01file\0octet\0", to);
        }
        Ok(())
    })
}

/// Floods a router for so long.
fn flood(network: &Network, kind: FloodKind, per_second: u32, lasts: Duration) -> Result<()> {
    let flood = start_flood(network, kind, per_second)?;
    thread::sleep(lasts);
    flood.stop()?;
    Ok(())
}

fn start_flood(network: &Network, kind: FloodKind, per_second: u32) -> Result<Flood> {
    let to = (Family::Ipv4, FLOOD_PORT);
    Flood::through(network, kind, Rate::PerSecond(per_second), to, Cpus::share_out()?)
}

/// What doctor finds in a namespace, the worst first.
fn found(namespace: &Handle) -> Result<Vec<Value>> {
    let output = product::command_in(namespace, &["doctor", "--json"])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    ensure!(matches!(code, Some(0 | 1)), "{code:?}: {said}");
    let report: Value = serde_json::from_slice(&output.stdout).context("doctor's JSON")?;
    let findings = report.get("findings").and_then(Value::as_array);
    Ok(findings.context("doctor's findings")?.clone())
}

fn of_check<'f>(found: &'f [Value], check: &str) -> Option<&'f Value> {
    found.iter().find(|finding| finding["check"] == check)
}

/// Fails unless `cause` is what doctor tells first, and the only cause that it tells.
fn expect_first(namespace: &Handle, cause: &str) -> Result<()> {
    let found = found(namespace)?;
    let checks: Vec<_> = found.iter().filter_map(|finding| finding["check"].as_str()).collect();
    println!("{cause}: {}", found.first().map_or("", |first| first["what"].as_str().unwrap_or("")));
    ensure!(checks.first() == Some(&cause), "{cause} is not first: {checks:?}");
    let others: Vec<_> =
        checks.iter().filter(|check| **check != cause && CAUSES.contains(check)).collect();
    ensure!(others.is_empty(), "{cause} is told, and {others:?}");
    Ok(())
}
