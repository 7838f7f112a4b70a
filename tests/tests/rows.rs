//! What ctguard promises, row by row, in a few seconds each. `cargo xtask lab --row all` shows the
//! same at length, beside a router without a guard.

use std::num::NonZeroU32;

use anyhow::{Result, ensure};
use ctguard_tests::{
    product, require,
    rows::{self, Bench, Length, ROWS},
};

/// Fails with the rows that miss a bar.
#[test]
fn every_row_of_the_promise_holds() -> Result<()> {
    const TEST: &str = "every_row_of_the_promise_holds";
    if !require::root(TEST) || !require::release_binary(TEST) || !require::two_cpus(TEST) {
        return Ok(());
    }
    let out = std::env::temp_dir().join("ctguard-rows");
    let mut bench = Bench::new(product::binary()?, out, Length::Short, NonZeroU32::MIN);
    let mut missed = Vec::new();
    println!("{}", rows::head());
    for row in ROWS.iter().filter(|row| row.is_paced()) {
        // One row says nothing of another: all are tried, and all that fail are told.
        for &table_max in bench.tables(row) {
            let mut told = bench.run(row, table_max, &|_| ());
            let mut lines = rows::table(&told);
            println!("{lines}");
            if !told.held() {
                // A machine that stalled once; what fails twice is a fault.
                told = bench.run(row, table_max, &|_| ());
                lines = rows::table(&told);
                println!("again:\n{lines}");
            }
            missed.extend((!told.held()).then_some(lines));
        }
    }
    ensure!(missed.is_empty(), "rows that missed a bar:\n{}", missed.join("\n"));
    Ok(())
}
