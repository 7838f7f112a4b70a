//! `cargo xtask bench`: what a packet costs, alone and in a flooded router, beside other guards.

use std::process::ExitCode;

use anyhow::Result;

use crate::{lab, packages, privilege};

/// What the benchmark is asked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Passed on to the benchmark; `-- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCH OPTIONS")]
    pass_on: Vec<String>,
}

/// Builds ctguard and the benchmark, and runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    privilege::require_root("bench")?;
    packages::ensure(packages::BENCHMARK)?;
    lab::run_binary("ctguard-bench", &options.pass_on)
}
