//! `cargo xtask lab`: a NAT router in network namespaces, flooded without and with ctguard.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{ebpf, exec, packages, privilege, workspace};

/// What the lab is asked; `--help` as well is the lab's own to answer.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on to the lab; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "LAB OPTIONS")]
    pass_on: Vec<String>,
}

/// Builds ctguard and the lab, and runs the lab.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    privilege::require_root("lab")?;
    run_binary("ctguard-lab", &options.pass_on)
}

/// Builds ctguard and `binary` of the tests crate, and runs `binary` with `arguments`.
pub(crate) fn run_binary(binary: &str, arguments: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(build_binary(binary)?);
    exec::run(command.args(arguments).current_dir(workspace::root()?))?;
    Ok(ExitCode::SUCCESS)
}

/// Builds ctguard and `binary` of the tests crate.
pub(crate) fn build_binary(binary: &str) -> Result<PathBuf> {
    packages::ensure(packages::KERNEL_TESTS)?;
    ebpf::warn_if_stale()?;
    eprintln!("xtask: building ctguard and {binary}");
    exec::run(exec::cargo()?.args(["build", "--release", "--package", "ctguard"]))?;
    exec::run(exec::cargo()?.args([
        "build",
        "--release",
        "--package",
        "ctguard-tests",
        "--bin",
        binary,
    ]))?;
    workspace::release_binary(binary)
}
