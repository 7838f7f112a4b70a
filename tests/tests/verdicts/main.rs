//! Every verdict and every counter of the object in the kernel, packet by packet, by
//! `BPF_PROG_TEST_RUN`.

mod admission;
mod differential;
mod exempt;
mod expiry;
mod fragments;
mod host;
mod known;
mod link;
mod lists;
mod malformed;
mod packets;
mod race;
mod random;
mod row;

use std::collections::BTreeSet;

use ctguard_layout::{Counter, Outcome};

/// Counted only where some class is not calm, or a scope has limits: `guard/tests/challenge.rs`
/// expects each of them, and the lab's rows count them in the kernel.
fn is_of_another_stage(counter: Counter) -> bool {
    use Outcome::{
        ChallengeAnswered, ChallengedByAck, ChallengedBySilence, ChallengedByTruncation,
        RefusedChallenge, RefusedPrefix, RefusedService,
    };
    matches!(
        counter,
        Counter::Flows(
            ChallengedByAck
                | ChallengedBySilence
                | ChallengedByTruncation
                | RefusedChallenge
                | RefusedPrefix
                | RefusedService,
            _
        ) | Counter::Packets(ChallengeAnswered)
    )
}

/// Fails when a counter is added that no packet of the tables is expected to count, or when the
/// last packet that counts one is taken out.
#[test]
fn every_counter_is_expected_of_some_packet() {
    let tables = [
        admission::rows(),
        exempt::rows(),
        fragments::rows(),
        known::rows(),
        link::rows(),
        lists::rows(),
        malformed::rows(),
    ];
    let expected: BTreeSet<u32> = tables
        .iter()
        .flatten()
        .flat_map(|row| row.counters.iter().map(|counter| counter.index()))
        .collect();
    for counter in Counter::all().filter(|&counter| !is_of_another_stage(counter)) {
        assert!(expected.contains(&counter.index()), "no packet counts {counter:?}");
    }
}
