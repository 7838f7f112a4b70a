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
    ($($test:ident $row:literal)*) => {
        mod the_promise_holds_for {
            $(#[test]
            fn $test() -> anyhow::Result<()> {
                super::try_row(stringify!($test), $row)
            })*
        }

        const TRIED: &[&str] = &[$($row),*];
    };
}

rows! {
    syn_one_source "syn-one-source"
    udp_one_source "udp-one-source"
    syn_spoofed "syn-spoofed"
    syn_live "syn-live"
    udp_spoofed "udp-spoofed"
    ack "ack"
    completing "completing"
    bots "bots"
    bots_prefix "bots-prefix"
    bots_prefix_v6 "bots-prefix-v6"
    lan_host "lan-host"
    syn_allowed "syn-allowed"
    mixed "mixed"
    full_table "full-table"
    full_table_kept "full-table-kept"
    killed "killed"
    dropped_later "dropped-later"
    full_syn_answered "full-syn-answered"
    full_udp_answered "full-udp-answered"
    holders "holders"
    holders_before "holders-before"
    completers "completers"
    many_completers "many-completers"
    slow_spoofed "slow-spoofed"
    pulses "pulses"
    inside_host_slow "inside-host-slow"
    inside_host "inside-host"
    daemon_killed "daemon-killed"
    calm_heavy "calm-heavy"
    calm_day "calm-day"
}

#[test]
fn every_row_with_a_pace_is_tried() {
    let paced = ROWS.iter().filter(|row| row.is_paced()).map(|row| row.name);
    assert!(paced.eq(TRIED.iter().copied()));
}

/// Fails with the row's lines if it misses a bar.
fn try_row(test: &str, name: &str) -> Result<()> {
    if !require::root(test) || !require::release_binary(test) || !require::two_cpus(test) {
        return Ok(());
    }
    let out = std::env::temp_dir().join("ctguard-rows");
    let mut bench = Bench::new(product::binary()?, out, Length::Short, NonZeroU32::MIN);
    let row = ROWS.iter().find(|row| row.name == name).context("no such row")?;
    println!("\n{}", rows::head());
    for &table_max in bench.tables(row) {
        let told = bench.run(row, table_max, &|_| ());
        let lines = rows::table(&told);
        println!("{lines}");
        ensure!(told.held(), "a bar is missed:\n{lines}");
    }
    Ok(())
}
