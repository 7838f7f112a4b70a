//! What a packet costs, alone and in a flooded router, beside other guards.

use std::process::ExitCode;

use clap::Parser as _;
use ctguard_tests::bench::{self, Options};

fn main() -> ExitCode {
    match bench::run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("ctguard-bench: a bar is missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("ctguard-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
