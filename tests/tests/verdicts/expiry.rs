//! Entries of lists that end: the data path itself stops honouring them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ctguard_layout::{Class, Counter, List, Outcome};
use ctguard_tests::{
    data_path::{Action, DataPath},
    require,
};

use crate::{
    packets::{self, LOCAL, LOCAL6, REMOTE, REMOTE6, ipv4_bytes, ipv6_bytes},
    row,
};

const PATIENCE: Duration = Duration::from_secs(20);
const FAR_AWAY: u64 = 1_000_000_000;

/// Fails when an entry holds beyond its end while no daemon removes it, or ends before.
#[test]
fn an_entry_ends_by_itself() -> Result<()> {
    if !require::root("an_entry_ends_by_itself") {
        return Ok(());
    }
    let mut path = row::fresh()?;
    use_lists(&mut path, &[List::DenyV4, List::DenyV6])?;
    let four = || packets::udp(REMOTE, LOCAL, 1);
    let six = || packets::udp(REMOTE6, LOCAL6, 1);

    deny(&mut path, FAR_AWAY)?;
    ensure!(path.judge(&four())? == Action::Drop, "an entry that lasts holds");
    ensure!(path.judge(&six())? == Action::Drop, "an entry that lasts holds on IPv6");

    deny(&mut path, 10)?;
    let began = Instant::now();
    while path.judge(&four())? == Action::Drop || path.judge(&six())? == Action::Drop {
        ensure!(began.elapsed() < PATIENCE, "an entry of ten jiffies still holds");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Fails when an allowed source keeps its privilege after its entry's end.
#[test]
fn an_allowed_source_is_a_stranger_again_when_its_entry_ends() -> Result<()> {
    if !require::root("an_allowed_source_is_a_stranger_again_when_its_entry_ends") {
        return Ok(());
    }
    let mut path = row::fresh()?;
    use_lists(&mut path, &[List::AllowV4])?;
    let ended = path.jiffies()? - 1;
    path.list_ipv4(List::AllowV4, ipv4_bytes(REMOTE), 32, ended)?;
    path.judge(&packets::udp(REMOTE, LOCAL, 1))?;
    ensure!(path.counter(Counter::Flows(Outcome::Admitted, Class::Udp))? == 1);
    ensure!(path.counter(Counter::Allowed(Class::Udp))? == 0);
    ensure!(path.grant().admitted[0].0.load() == 1, "it is charged to the strangers' grant");
    Ok(())
}

fn use_lists(path: &mut DataPath, lists: &[List]) -> Result<()> {
    row::set_environment(path, |environment| {
        environment.operator.lists_in_use = lists.iter().map(|list| list.bit()).sum();
    })
}

fn deny(path: &mut DataPath, jiffies: u64) -> Result<()> {
    let end = path.jiffies()? + jiffies;
    path.list_ipv4(List::DenyV4, ipv4_bytes(REMOTE), 32, end)?;
    path.list_ipv6(List::DenyV6, ipv6_bytes(REMOTE6), 128, end)
}
