//! The init of a virtual machine: tries ctguard on that machine's kernel, and powers off.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ctguard_tests::guest::run() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("ctguard-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
