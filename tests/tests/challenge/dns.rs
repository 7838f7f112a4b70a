//! DNS queries under a challenge.

use anyhow::{Context as _, Result, ensure};
use ctguard_datapath::{
    challenge::write_truncated,
    packet::{Ipv4, Ipv6},
};
use ctguard_layout::{Class, Counter, Outcome, Policy, Stage};
use ctguard_tests::{
    data_path::{Action, DataPath, Setup},
    require,
};
use etherparse::PacketBuilder;

const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
/// Challenges that one source is sent at once.
const BURST: u16 = 10;

/// Fails when the kernel's bytes differ from the host's, or when one source is sent answer after answer.
#[test]
fn a_query_is_answered_by_a_truncated_reply_with_the_bytes_that_the_host_writes() -> Result<()> {
    let name = "a_query_is_answered_by_a_truncated_reply_with_the_bytes_that_the_host_writes";
    if !require::root(name) {
        return Ok(());
    }
    let path = challenging(Policy::DNS)?;
    for is_ipv6 in [false, true] {
        for port in 1..=BURST {
            let query = query(is_ipv6, port, 53)?;
            let mut expected = query.clone();
            let written = if is_ipv6 {
                write_truncated::<Ipv6>(&mut expected)
            } else {
                write_truncated::<Ipv4>(&mut expected)
            };
            written.context("a query")?;
            let (action, got) = path.rewrite(&query)?;
            ensure!(action == Action::Answer && got == expected, "{port}: {action:?} {got:02x?}");
        }
        let beyond = query(is_ipv6, 99, 53)?;
        let (action, got) = path.rewrite(&beyond)?;
        ensure!(action == Action::Drop && got == beyond, "{action:?}: one source has its ten");
    }
    let counted = path.counter(Counter::Flows(Outcome::ChallengedByTruncation, Class::Udp))?;
    ensure!(counted == 2 * u64::from(BURST), "{counted}");
    Ok(())
}

#[test]
fn other_datagrams_and_a_guard_without_the_setting_answer_nothing() -> Result<()> {
    if !require::root("other_datagrams_and_a_guard_without_the_setting_answer_nothing") {
        return Ok(());
    }
    for (switches, port) in [(Policy::DNS, 54), (0, 53)] {
        let frame = query(false, 7, port)?;
        let (action, got) = challenging(switches)?.rewrite(&frame)?;
        ensure!(action == Action::Drop && got == frame, "{switches}, {port}: {action:?}");
    }
    let frame = query(false, 7, 53)?;
    let (action, got) = challenging(Policy::DNS | Policy::DRY_RUN)?.rewrite(&frame)?;
    ensure!(action == Action::Pass && got == frame, "a dry run: {action:?}");
    Ok(())
}

fn challenging(switches: u32) -> Result<DataPath> {
    let mut path = DataPath::load(Setup::default())?;
    path.set_policy(|policy| policy.switches = switches)?;
    path.set_stage(Stage::Challenge)?;
    Ok(path)
}

fn query(is_ipv6: bool, from: u16, to: u16) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let network = if is_ipv6 {
        link.ipv6([0x20; 16], [0xfd; 16], 57)
    } else {
        link.ipv4([192, 0, 2, 1], [198, 51, 100, 2], 57)
    };
    let mut frame = Vec::new();
    network.udp(from, to).write(&mut frame, QUERY)?;
    Ok(frame)
}
