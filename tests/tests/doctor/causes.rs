//! Each known cause of a full table, with real packets through a NAT router.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    addresses::Family, exec, recipe::FloodKind, require, router::Network, sysctl::HostSysctl, table,
};
use tokio::net::TcpSocket;

use super::{INFECTED, ask, expect_first, flood, found, is_possible, of_check};

const MAX: &str = "net.netfilter.nf_conntrack_max";
const HASH: &str = "net.netfilter.nf_conntrack_buckets";
const TABLE: &str = "4096";
/// More than half of the table.
const FLOWS: u16 = 3000;
/// Nobody is there, and nobody says so.
const NOBODY: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const SERVER_PORT: u16 = 8080;

/// A table with nothing wrong, which these tests do not fill.
fn large_table() -> Result<[HostSysctl; 2]> {
    const LARGE: &str = "262144";
    Ok([HostSysctl::set(MAX, LARGE)?, HostSysctl::set(HASH, LARGE)?])
}

/// A flood that is long enough to fill any table here.
fn flooded(kind: FloodKind, cause: &str) -> Result<()> {
    let _table = HostSysctl::set(MAX, TABLE)?;
    let network = Network::build()?;
    flood(&network, kind, 100_000, Duration::from_millis(500))?;
    expect_first(&network.router, cause)
}

#[test]
fn a_syn_flood_is_called_by_its_name() -> Result<()> {
    const TEST: &str = "a_syn_flood_is_called_by_its_name";
    if !is_possible(TEST) || !require::two_cpus(TEST) {
        return Ok(());
    }
    flooded(FloodKind::SynSpoofed, "syn-flood")
}

#[test]
fn a_udp_flood_is_called_by_its_name() -> Result<()> {
    const TEST: &str = "a_udp_flood_is_called_by_its_name";
    if !is_possible(TEST) || !require::two_cpus(TEST) {
        return Ok(());
    }
    flooded(FloodKind::UdpSpoofed, "udp-flood")
}

#[test]
fn a_host_that_resolves_in_a_loop_is_named() -> Result<()> {
    if !is_possible("a_host_that_resolves_in_a_loop_is_named") {
        return Ok(());
    }
    let _table = HostSysctl::set(MAX, TABLE)?;
    let network = Network::build()?;
    ask(&network.inside, 2000..2000 + FLOWS, SocketAddr::from((NOBODY, 53)))?;
    expect_first(&network.router, "dns-loop")?;
    let told = found(&network.router)?;
    let what = told[0]["what"].to_string();
    ensure!(what.contains("10.0.1.1"), "the host is not named: {what}");

    // What doctor prints for it leaves the entries of others.
    network.router.run(|| {
        let other = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Nobody is there.
        let _ = other.send_to(b"x", (NOBODY, 9999));
        Ok(())
    })?;
    let mends = told[0]["mend"].as_array().context("no mend")?;
    let mut commands = mends.iter().filter_map(|mend| mend["command"].as_str());
    let command = commands.next_back().context("no command")?;
    ensure!(command.starts_with("conntrack -D "), "{command}");
    exec::run(network.router.command("sh").args(["-c", command]))?;
    let left = table::count(&network.router)?;
    ensure!((1..u64::from(FLOWS) / 10).contains(&left), "{command} leaves {left} entries");
    let after = found(&network.router)?;
    ensure!(of_check(&after, "dns-loop").is_none(), "{after:?}");
    Ok(())
}

#[test]
fn a_host_that_scans_is_named() -> Result<()> {
    if !is_possible("a_host_that_scans_is_named") {
        return Ok(());
    }
    let _table = HostSysctl::set(MAX, TABLE)?;
    let network = Network::build()?;
    network.inside.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for number in 0..u32::from(FLOWS) {
                let socket = TcpSocket::new_v4()?;
                socket.bind((INFECTED, 0).into())?;
                let to = SocketAddr::from((Ipv4Addr::from(u32::from(NOBODY) + number), 445));
                // The SYN leaves at once; nobody answers it.
                let _ = tokio::time::timeout(Duration::ZERO, socket.connect(to)).await;
            }
            Ok(())
        })
    })?;
    expect_first(&network.router, "scan")
}

#[test]
fn connections_that_are_idle_for_hours_are_told_by_their_age() -> Result<()> {
    const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
    const CONNECTIONS: usize = 700;
    const THREADS: usize = 20;
    if !is_possible("connections_that_are_idle_for_hours_are_told_by_their_age") {
        return Ok(());
    }
    let _table = HostSysctl::set(MAX, "1024")?;
    let network = Network::build()?;
    // What is left of their lives when they are hours old.
    network.router.sysctl(&[(ESTABLISHED, "400000")])?;
    let server = SocketAddr::new(Family::Ipv4.far_server(), SERVER_PORT);
    let listener = network.far.run(|| Ok(TcpListener::bind(server)?))?;
    let accepted = thread::spawn(move || -> Vec<TcpStream> {
        listener.incoming().take(CONNECTIONS).flatten().collect()
    });
    let opened = network.inside.run(|| {
        thread::scope(|scope| {
            let open = || -> std::io::Result<Vec<TcpStream>> {
                (0..CONNECTIONS / THREADS).map(|_| TcpStream::connect(server)).collect()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
            let mut opened = Vec::new();
            for thread in threads {
                opened.extend(thread.join().ok().context("a thread panicked")??);
            }
            Ok(opened)
        })
    })?;
    network.router.sysctl(&[(ESTABLISHED, "432000")])?;
    expect_first(&network.router, "idle-connections")?;
    drop((opened, accepted.join()));
    Ok(())
}

#[test]
fn nat_ports_that_run_out_are_told_from_a_full_table() -> Result<()> {
    if !is_possible("nat_ports_that_run_out_are_told_from_a_full_table") {
        return Ok(());
    }
    let _table = large_table()?;
    let network = Network::build()?;
    ask(&network.inside, 2000..60_000, SocketAddr::from((NOBODY, 9999)))?;
    expect_first(&network.router, "nat-ports")
}

#[test]
fn flows_that_cannot_be_inserted_are_told_from_a_full_table() -> Result<()> {
    if !is_possible("flows_that_cannot_be_inserted_are_told_from_a_full_table") {
        return Ok(());
    }
    let _table = large_table()?;
    let network = Network::build()?;
    let rules = "flush chain ip nat postrouting\n\
        add rule ip nat postrouting meta l4proto udp masquerade to :20000-20009\n";
    exec::run_with_input(network.router.command("nft").args(["-f", "-"]), rules)?;
    ask(&network.inside, 2000..5000, SocketAddr::from((NOBODY, 9999)))?;
    expect_first(&network.router, "insert-failed")
}

/// TFTP's helper announces a flow for each request.
#[test]
fn expectations_that_run_out_are_told_from_a_full_table() -> Result<()> {
    const EXPECT_MAX: &str = "net.netfilter.nf_conntrack_expect_max";
    if !is_possible("expectations_that_run_out_are_told_from_a_full_table") {
        return Ok(());
    }
    let (_table, _room) = (HostSysctl::set(MAX, TABLE)?, HostSysctl::set(EXPECT_MAX, "64")?);
    let network = Network::build()?;
    let rules = "table ip helpers {
        ct helper tftp { type \"tftp\" protocol udp; }
        chain prerouting {
            type filter hook prerouting priority filter;
            udp dport 69 ct helper set \"tftp\"
        }
    }\n";
    exec::run_with_input(network.router.command("nft").args(["-f", "-"]), rules)?;
    ask(&network.inside, 2000..2200, SocketAddr::from((NOBODY, 69)))?;
    expect_first(&network.router, "expectations-full")?;
    let what = found(&network.router)?[0]["what"].to_string();
    ensure!(what.contains("64 of 64"), "not by its numbers: {what}");
    Ok(())
}
