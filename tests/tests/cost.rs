//! What a packet costs beside a reference of the same run: no times, which differ by machine.

use anyhow::{Result, ensure};
use ctguard_tests::{bench, require};

/// Fails when a change makes some kind of packet much dearer than it was.
#[test]
fn no_kind_of_packet_costs_much_more_lru_buckets_than_it_did() -> Result<()> {
    if !require::root("no_kind_of_packet_costs_much_more_lru_buckets_than_it_did") {
        return Ok(());
    }
    let mut beyond = bench::beyond_gates()?;
    if !beyond.is_empty() {
        // Something else may have kept the machine busy.
        beyond = bench::beyond_gates()?;
    }
    ensure!(beyond.is_empty(), "{}", beyond.join("; "));
    Ok(())
}
