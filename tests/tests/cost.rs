//! What a packet costs beside a reference of the same run: no times, which differ by machine.

use anyhow::{Result, ensure};
use ctguard_tests::{bench, require};

const TRIES: usize = 5;

/// Fails when a change makes some kind of packet much dearer than it was.
#[test]
fn no_kind_of_packet_costs_much_more_lru_buckets_than_it_did() -> Result<()> {
    if !require::root("no_kind_of_packet_costs_much_more_lru_buckets_than_it_did") {
        return Ok(());
    }
    let mut beyond = bench::beyond_gates()?;
    // Who else uses the machine's caches makes large programs dearer than small ones, by half in one
    // minute and not in the next. A change makes a packet dearer each time.
    for _ in 1..TRIES {
        if beyond.is_empty() {
            break;
        }
        let again = bench::beyond_gates()?;
        beyond.retain(|kind, _| again.contains_key(kind));
    }
    ensure!(beyond.is_empty(), "{}", beyond.into_values().collect::<Vec<_>>().join("; "));
    Ok(())
}
