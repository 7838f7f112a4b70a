//! What an audit of a large table costs.

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ctguard_tests::{
    product, recipe::FloodKind, require, router::Network, sysctl::HostSysctl, table,
};

use super::flood;

const ENTRIES: u64 = 262_144;
const MOST_KIBIBYTES: u64 = 32 << 10;
/// Of the CPU, by the clock of `/proc`, which ticks a hundred times a second. The time that passes is
/// told and not judged: others' load changes it.
const MOST_TICKS: u64 = 100;

/// Fails when an audit takes memory by the entry, or a second of CPU time.
#[test]
fn an_audit_of_a_full_table_of_262144_takes_less_than_a_second_and_32_mebibytes() -> Result<()> {
    const TEST: &str =
        "an_audit_of_a_full_table_of_262144_takes_less_than_a_second_and_32_mebibytes";
    if !require::root(TEST) || !require::release_binary(TEST) || !require::two_cpus(TEST) {
        return Ok(());
    }
    let _table = HostSysctl::set("net.netfilter.nf_conntrack_max", &ENTRIES.to_string())?;
    let network = Network::build()?;
    flood(&network, FloodKind::SynSpoofed, 300_000, Duration::from_secs(4))?;
    let count = table::count(&network.router)?;
    ensure!(count >= ENTRIES / 10 * 9, "only {count} entries");

    let binary = product::binary()?;
    let mut command = network.router.command(&binary.to_string_lossy());
    let began = Instant::now();
    let mut child = command.args(["doctor", "--json"]).stdout(Stdio::null()).spawn()?;
    let (mut kibibytes, mut ticks) = (0, 0);
    while child.try_wait()?.is_none() {
        kibibytes = kibibytes.max(peak_kibibytes(child.id()).unwrap_or(0));
        ticks = ticks.max(cpu_ticks(child.id()).unwrap_or(0));
        thread::sleep(Duration::from_millis(2));
    }
    let passed = began.elapsed();
    println!("an audit of {count} entries: {passed:?}, {ticks}0 ms of CPU, {kibibytes} KiB");
    ensure!((1..=MOST_KIBIBYTES).contains(&kibibytes), "{kibibytes} KiB");
    ensure!((1..MOST_TICKS).contains(&ticks), "{ticks} ticks of CPU");
    Ok(())
}

/// The most memory that a process has had; none once it has ended.
fn peak_kibibytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The CPU time that a process has used, its own and the kernel's for it (`proc_pid_stat(5)`).
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A name in brackets comes first.
    let (_, after) = stat.rsplit_once(')')?;
    let mut words = after.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(user.saturating_add(system))
}
