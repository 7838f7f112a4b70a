//! ctguard against the kernel itself: whether it calls exactly those packets new of which conntrack
//! confirms an entry. Random packets, one at a time, through a guarded NAT router; each is followed
//! by a mark, which has come through when everything is over.

mod breakage;
mod dissect;
mod explain;
mod flows;
mod frame;
mod inside;
mod network;
mod outside;
mod report;
mod run;
mod tally;
mod transport;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{product, random, require};
use explain::Detection;
use tally::Finding;

/// Packets from outside in a run, which `CTGUARD_PACKETS` changes.
const PACKETS: u32 = 20_000;

/// Fails when ctguard lets a packet pass uncharged of which conntrack makes an entry, or charges for
/// one of which it makes none, for a reason that [`explain`] does not tell.
///
/// `CTGUARD_SEED` repeats a run whose seed was printed.
#[test]
fn the_flow_cache_calls_new_what_conntrack_makes_an_entry_of() -> Result<()> {
    let name = "the_flow_cache_calls_new_what_conntrack_makes_an_entry_of";
    compare(name, Detection::FlowCache)
}

/// The same, asking conntrack.
#[test]
fn asking_conntrack_calls_new_what_it_makes_an_entry_of() -> Result<()> {
    let name = "asking_conntrack_calls_new_what_it_makes_an_entry_of";
    if require::release_binary(name) && !asks_conntrack()? {
        println!("this ctguard run has no {}", Detection::OPTION);
        return Ok(());
    }
    compare(name, Detection::Conntrack)
}

fn compare(name: &str, detection: Detection) -> Result<()> {
    if !require::root(name) || !require::release_binary(name) {
        return Ok(());
    }
    let packets = match std::env::var("CTGUARD_PACKETS") {
        Ok(packets) => packets.parse().context("CTGUARD_PACKETS is a number")?,
        Err(_) => PACKETS,
    };
    let seed = random::seed()?;
    println!("CTGUARD_SEED={seed} CTGUARD_PACKETS={packets}, {detection:?}");
    let tally = run::compare(detection, seed, packets)
        .with_context(|| format!("CTGUARD_SEED={seed} CTGUARD_PACKETS={packets}, {detection:?}"))?;
    for finding in [Finding::AgreedNew, Finding::AgreedOld] {
        let count = tally.total(finding);
        ensure!(count >= packets / 10, "{finding:?} {count} times only: this compares nothing");
    }
    Ok(())
}

fn asks_conntrack() -> Result<bool> {
    let help = Command::new(product::binary()?).args(["run", "--help"]).output()?;
    Ok(String::from_utf8_lossy(&help.stdout).contains(Detection::OPTION))
}
