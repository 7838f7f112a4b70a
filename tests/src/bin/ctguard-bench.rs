//! What a packet costs over a program that only drops, by `BPF_PROG_TEST_RUN`.

use std::process::ExitCode;

use clap::Parser as _;
use ctguard_tests::bench::{self, Options};

fn main() -> ExitCode {
    match bench::run(&Options::parse()) {
        Ok(report) => {
            println!("{report}");
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("ctguard-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
