//! What doctor finds on a machine beside what fills the table.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    exec,
    guard::{Guard, Orders},
    netns::Namespace,
    product,
    recipe::FloodKind,
    require,
    router::{Network, WAN},
    sysctl::HostSysctl,
    table,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::{ask, flood, found, is_possible, of_check, start_flood};

const MAX: &str = "net.netfilter.nf_conntrack_max";
/// Audits that may be in vain, for others have the CPU.
const AUDITS: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Fails when a container's full table is seen by nobody but itself.
#[test]
fn a_full_table_of_another_namespace_is_told_by_its_name() -> Result<()> {
    if !is_possible("a_full_table_of_another_namespace_is_told_by_its_name") {
        return Ok(());
    }
    let _table = HostSysctl::set(MAX, "4096")?;
    let network = Network::build()?;
    let nobody = SocketAddr::from((Ipv4Addr::new(100, 64, 0, 1), 9999));
    ask(&network.inside, 2000..5300, nobody)?;
    let found = found(&network.far)?;
    let finding = of_check(&found, "namespace-fill").context("nothing of the router")?;
    let what = finding["what"].as_str().unwrap_or_default();
    println!("{what}");
    ensure!(finding["severity"] == "warning", "{finding}");
    ensure!(what.contains(network.router.name()), "the namespace is not named: {what}");
    Ok(())
}

#[test]
fn a_table_that_fills_is_told_before_it_is_full() -> Result<()> {
    const TEST: &str = "a_table_that_fills_is_told_before_it_is_full";
    if !is_possible(TEST) || !require::two_cpus(TEST) {
        return Ok(());
    }
    let _table = HostSysctl::set(MAX, "2097152")?;
    let network = Network::build()?;
    ensure!(of_check(&found(&network.router)?, "filling").is_none(), "nothing comes");
    let flood = start_flood(&network, FloodKind::SynSpoofed, 100_000)?;
    let mut told = None;
    for _ in 0..AUDITS {
        told = of_check(&found(&network.router)?, "filling").cloned();
        if told.is_some() {
            break;
        }
    }
    flood.stop()?;
    let told = told.context("no audit told that the table fills")?;
    println!("{}", told["what"]);
    Ok(())
}

/// A service that accepts nobody.
#[test]
fn a_service_whose_accept_queue_overflows_is_told_by_its_address() -> Result<()> {
    if !is_possible("a_service_whose_accept_queue_overflows_is_told_by_its_address") {
        return Ok(());
    }
    let host = Namespace::create("service")?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let tcp = |flags| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let (found, done) = (|| found(&host), AtomicBool::new(false));
    let _service = host.run(|| {
        let service = tcp(SocketFlags::empty())?;
        bind(&service, &at)?;
        listen(&service, 1)?;
        Ok(service)
    })?;
    ensure!(of_check(&found()?, "accept-queue").is_none(), "nobody came");
    let told = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            host.run(|| {
                let mut clients = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let client = tcp(SocketFlags::NONBLOCK)?;
                    // It is in progress, and stays so.
                    let _ = connect(&client, &at);
                    clients.push(client);
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            })
        });
        let mut told = Ok(None);
        for _ in 0..AUDITS {
            told = found().map(|found| of_check(&found, "accept-queue").cloned());
            if !matches!(&told, Ok(found) if found.as_ref().is_none_or(|one| one["severity"] == "note"))
            {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        match clients.join() {
            Ok(ended) => ended.and(told),
            Err(_) => bail!("the clients panicked"),
        }
    })?;
    let told = told.context("no audit told that the queue overflows")?;
    println!("{}", told["what"]);
    ensure!(told["severity"] == "warning", "{told}");
    ensure!(told["read"].to_string().contains("127.0.0.1:8080"), "not by its address: {told}");
    Ok(())
}

/// Fails when an audit says nothing of the guard that refuses a flood, or other than its counters.
#[test]
fn a_guard_is_told_by_what_it_refused() -> Result<()> {
    const TEST: &str = "a_guard_is_told_by_what_it_refused";
    if !is_possible(TEST) || !require::two_cpus(TEST) {
        return Ok(());
    }
    let _table = HostSysctl::set(MAX, "4096")?;
    let network = Network::build()?;
    let guard = Guard::Ctguard(Orders {
        binary: product::binary()?,
        settings: Vec::new(),
        interfaces: vec![WAN],
        allowed: Vec::new(),
        regulars: Vec::new(),
    });
    let log = std::env::temp_dir().join(format!("ctguard-doctor-{}.log", std::process::id()));
    let _standing = guard.start(&network.router, FLOOD_PORT, &log)?;
    flood(&network, FloodKind::UdpSpoofed, 50_000, Duration::from_secs(1))?;
    let found = found(&network.router)?;
    let told = of_check(&found, "guard").context("nothing of the guard")?;
    std::fs::remove_file(&log)?;
    println!("{}: {}", told["what"], told["why"]);
    let what = told["what"].as_str().unwrap_or_default();
    let refused = what.split_whitespace().nth(4).and_then(|word| word.parse::<u64>().ok());
    ensure!(refused.is_some_and(|refused| refused > 0), "{what}");
    Ok(())
}

/// Fails when the rules that doctor prints are refused, or leave entries, or no answers.
#[test]
fn the_rules_of_notrack_that_are_told_leave_no_entries() -> Result<()> {
    const ASKED: u64 = 10;
    if !is_possible("the_rules_of_notrack_that_are_told_leave_no_entries") {
        return Ok(());
    }
    let network = Network::build()?;
    let host = &network.inside;
    let rules = "add table inet asks\n\
        add chain inet asks input { type filter hook input priority filter; }\n\
        add rule inet asks input ct state new counter accept\n";
    exec::run_with_input(host.command("nft").args(["-f", "-"]), rules)?;
    let at = SocketAddr::new(Family::Ipv4.inside_server(), 53);
    let server = host.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, at.port()))?))?;
    // Entries that a round of questions and answers leaves.
    let left = || -> Result<u64> {
        let before = table::count(host)?;
        network.router.run(|| {
            let mut buffer = [0; 16];
            for _ in 0..ASKED {
                let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                client.set_read_timeout(Some(PATIENCE))?;
                client.send_to(b"?", at)?;
                server.set_read_timeout(Some(PATIENCE))?;
                let (_, from) = server.recv_from(&mut buffer).context("no question came")?;
                server.send_to(b"!", from)?;
                client.recv_from(&mut buffer).context("no answer came")?;
            }
            Ok(())
        })?;
        Ok(table::count(host)?.saturating_sub(before))
    };
    ensure!(left()? == ASKED, "the host tracks nothing");
    let found = found(host)?;
    let told = of_check(&found, "no-nat").context("nothing of NAT")?;
    let mends = told["mend"].as_array().context("no rules")?;
    for command in mends.iter().filter_map(|mend| mend["command"].as_str()) {
        exec::run(host.command("sh").args(["-c", command]))?;
    }
    ensure!(mends.len() >= 4, "{told}");
    let more = left()?;
    ensure!(more == 0, "{more} entries beside the rules");
    Ok(())
}
