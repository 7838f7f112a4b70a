//! A container's end of a veth has no XDP program, and native `XDP_TX` never arrives there.

use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{OUTSIDE, Site, WAN},
    require,
};
use serde_json::Value;

const ROUTER: &str = "198.51.100.1";
const PORT: u16 = 8_080;

/// Fails when the guard answers a container's SYN in a way that the container never sees, so that
/// each connection waits for the SYN's repetition.
#[test]
fn a_challenged_container_gets_the_answer_to_its_syn() -> Result<()> {
    if !require::root("a_challenged_container_gets_the_answer_to_its_syn") {
        return Ok(());
    }
    let site = Site::build()?;
    site.guarded().ip(&[format!("address add {ROUTER}/24 dev {WAN}")])?;
    site.outside().ip(&[format!("address add 198.51.100.2/24 dev {OUTSIDE}")])?;
    let listener = site.guarded().run(|| Ok(TcpListener::bind((ROUTER, PORT))?))?;

    // A SYN above the limit is challenged; one that answered has a limit of its own.
    let daemon = site.start(
        &[
            &["run", "-i", WAN, "--mode", "auto"][..],
            &["--set", "source.tcp.rate=1", "--set", "source.tcp.burst=1"],
        ]
        .concat(),
    )?;
    let connect = || Ok(TcpStream::connect((ROUTER, PORT))?);
    let _connections = [site.outside().run(connect)?, site.outside().run(connect)?];
    drop(listener);

    let status = site.status()?;
    ensure!(status.pointer("/interfaces/0/mode") == Some(&"generic".into()), "{status}");
    let tiers = status.pointer("/tiers").and_then(Value::as_array).context("tiers")?;
    let answered = tiers.iter().find(|tier| tier["name"] == "answered").context("a tier")?;
    ensure!(answered["admitted"] == 1, "{status}");
    ensure!(!daemon.log()?.contains("warning"), "{}", daemon.log()?);
    Ok(())
}

/// Fails when the operator who insists on native mode is not told what it costs.
#[test]
fn native_mode_on_a_veth_comes_with_a_warning() -> Result<()> {
    if !require::root("native_mode_on_a_veth_comes_with_a_warning") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.start(&["run", "-i", WAN, "--mode", "native"])?;
    let log = daemon.log()?;
    let warning = format!("warning: {WAN} is a veth in native mode");
    ensure!(log.contains(&warning) && log.contains("start with --mode generic"), "{log}");
    Ok(())
}
