//! Entries that are there when a timeout is lowered.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{addresses::Family, netns::Handle, product, require, router::Network};

use super::live::{RECORD, refuse_tuned};

const PORT: u16 = 8080;

/// Seconds that the connections to a port have left to live.
fn lives(router: &Handle, port: u16) -> Result<Vec<u64>> {
    let text = router.run(|| Ok(fs::read_to_string("/proc/thread-self/net/nf_conntrack")?))?;
    let port = format!("dport={port} ");
    let lines = text.lines().filter(|line| line.contains("ESTABLISHED") && line.contains(&port));
    // Family, its number, protocol, its number, seconds.
    lines.map(|line| Ok(line.split_whitespace().nth(4).context("a short line")?.parse()?)).collect()
}

/// Fails when a connection that is idle keeps its five days, or does not outlive their end; or when
/// the host takes back what was applied in another namespace, and uses up its record.
#[test]
fn an_idle_connection_is_given_the_new_timeout_and_lives() -> Result<()> {
    const TEST: &str = "an_idle_connection_is_given_the_new_timeout_and_lives";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    refuse_tuned()?;
    let network = Network::build()?;
    let server = SocketAddr::new(Family::Ipv4.far_server(), PORT);
    let listener = network.far.run(|| Ok(TcpListener::bind(server)?))?;
    let mut client = network.inside.run(|| Ok(TcpStream::connect(server)?))?;
    let (mut accepted, _) = listener.accept()?;
    let days = lives(&network.router, PORT)?;
    ensure!(matches!(days[..], [seconds] if seconds > 400_000), "{days:?}");

    let tune = |arguments: &[&str]| {
        let mut command = product::command_in(&network.router, &["tune"])?;
        let answer = product::answer(command.args(arguments))?;
        ensure!(answer.code == Some(0), "{arguments:?}: {}", answer.errors);
        Ok(answer.out)
    };
    // Of the table's size, which is not this namespace's to set, nothing is said but that.
    let applied = tune(&["--for", "nat-router", "--apply"]);
    let tried = || -> Result<()> {
        ensure!(applied?.contains("the first network namespace's to set"));
        let kept = lives(&network.router, PORT)?;
        ensure!(matches!(kept[..], [seconds] if seconds > 400_000), "it was shortened: {kept:?}");
        let said = tune(&["--for", "nat-router", "--apply", "--existing"])?;
        ensure!(said.contains("shortened the timeouts of 1 entries"), "{said}");
        Ok(())
    };
    let tried = tried();
    let host = Command::new(product::binary()?).args(["tune", "--revert"]).output()?;
    tune(&["--revert"])?;
    tried?;
    let said = String::from_utf8_lossy(&host.stderr).into_owned();
    ensure!(said.contains("of another network namespace"), "the host took it back: {said}");
    ensure!(!Path::new(RECORD).exists(), "the record is left");

    let shortened = lives(&network.router, PORT)?;
    ensure!(matches!(shortened[..], [seconds] if seconds <= 7440), "{shortened:?}");
    client.write_all(b"?")?;
    accepted.read_exact(&mut [0])?;
    Ok(())
}
