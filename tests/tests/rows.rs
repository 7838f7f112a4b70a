//! What ctguard promises, row by row, in a few seconds each. `cargo xtask lab --row all` shows the
//! same at length and at full rates, beside a router without a guard.

use std::num::NonZeroU32;

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product, require,
    rows::{self, Bench, Length, ROWS},
};

/// A test for each row: one says nothing of another.
macro_rules! rows {
    ($($row:ident)*) => {
        mod the_promise_holds_for {
            $(#[test]
            fn $row() -> anyhow::Result<()> {
                super::try_row(stringify!($row))
            })*
        }

        const TRIED: &[&str] = &[$(stringify!($row)),*];
    };
}

rows! {
    syn_one_source
    udp_one_source
    syn_spoofed
    syn_live
    udp_spoofed
    ack
    completing
    bots
    bots_prefix
    bots_prefix_v6
    lan_host
    syn_allowed
    mixed
    full_table
    full_table_kept
    killed
    dropped_later
    full_syn_answered
    full_udp_answered
    holders
    holders_before
    completers
    many_completers
    slow_spoofed
    pulses
    inside_host_slow
    inside_host
    daemon_killed
    calm_heavy
    calm_day
}

#[test]
fn every_row_with_a_pace_is_tried() {
    let paced = ROWS.iter().filter(|row| row.is_paced()).map(|row| row.name.replace('-', "_"));
    assert_eq!(paced.collect::<Vec<_>>(), TRIED);
}

/// By what the floods of packets are slowed, one after the other, where the machine is at its limit.
const SLOWER: [u32; 3] = [1, 2, 4];

/// Fails with the row's lines if it misses a bar, but not by a flood that the machine could not carry.
fn try_row(test: &str) -> Result<()> {
    if !require::root(test) || !require::release_binary(test) || !require::two_cpus(test) {
        return Ok(());
    }
    let out = std::env::temp_dir().join("ctguard-rows");
    let mut bench = Bench::new(product::binary()?, out, Length::Short, NonZeroU32::MIN);
    let row = ROWS.iter().find(|row| row.name.replace('-', "_") == test).context("no such row")?;
    println!("\n{}", rows::head());
    for &table_max in bench.tables(row) {
        let (mut missed, mut rates) = (None, Vec::new());
        for slower in SLOWER.into_iter().filter_map(NonZeroU32::new) {
            bench.slower = slower;
            let rate = bench.rate(row)?;
            // Not every flood can be slowed.
            if rates.contains(&rate) {
                break;
            }
            rates.push(rate);
            let told = bench.run(row, table_max, &|_| ());
            let lines = rows::table(&told);
            println!("{lines}");
            missed = (!told.held()).then_some(lines);
            if missed.is_none() || !told.is_at_limit() {
                break;
            }
        }
        ensure!(missed.is_none(), "a bar is missed:\n{}", missed.unwrap_or_default());
    }
    Ok(())
}
