//! `cargo xtask test`: every test of the workspace, counted, with each skipped one named.

mod tally;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{ebpf, exec, packages, privilege, workspace};
use tally::Tally;

/// The crate whose tests need root and a kernel.
const KERNEL_CRATE: &str = "ctguard-tests";

/// Its test binaries that take minutes.
const LABS: [&str; 3] = ["guarantee", "lab", "rows"];

/// Which tests are wanted.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out the lab, which floods a router in network namespaces for minutes
    #[arg(long)]
    no_lab: bool,
}

/// Runs the tests and prints the counts as the last line.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Err(reason) = packages::ensure(packages::KERNEL_TESTS) {
        // The tests that need them say so themselves.
        eprintln!("xtask: note: {reason:#}");
    }
    ebpf::warn_if_stale()?;
    eprintln!("xtask: building ctguard");
    exec::run(exec::cargo()?.args(["build", "--release", "--package", "ctguard"]))?;

    let mut tally = Tally::default();
    eprintln!("xtask: tests that need no root");
    let mut host = exec::cargo()?;
    host.args(["test", "--workspace", "--exclude", KERNEL_CRATE, "--no-fail-fast"]);
    let host_passed = observe(&mut host, &mut tally)?;

    eprintln!("xtask: tests that need root and a kernel");
    let kernel_passed = observe(&mut kernel_tests(options)?, &mut tally)?;

    for skip in tally.skipped() {
        println!("skipped: {skip}");
    }
    let refused = workspace::is_ci() && !tally.skipped().is_empty();
    if refused {
        println!("with CI=true no test may be skipped");
    }
    println!("{tally}");
    let passed = host_passed && kernel_passed && !tally.has_failures() && !refused;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn kernel_tests(options: &Options) -> Result<Command> {
    let mut cargo = exec::cargo()?;
    cargo.args(["test", "--profile", "kernel-tests", "--package", KERNEL_CRATE, "--no-fail-fast"]);
    if !privilege::is_root()
        && let Some(sudo) = exec::find("sudo")
    {
        // Cargo builds as the caller; only the tests themselves become root.
        cargo.arg("--config").arg(format!("target.'cfg(all())'.runner = '{} -E'", sudo.display()));
    }
    if options.no_lab {
        cargo.args(["--lib", "--bins"]);
        for target in test_targets()?.iter().filter(|target| !LABS.contains(&target.as_str())) {
            cargo.arg("--test").arg(target);
        }
    }
    // A passing test tells that it skipped itself only in its output; and no test may disturb the
    // load or the timing of another.
    cargo.args(["--", "--show-output", "--test-threads=1"]);
    Ok(cargo)
}

/// The names of the kernel crate's test binaries: of files, or of directories that hold more.
fn test_targets() -> Result<Vec<String>> {
    let directory = workspace::root()?.join("tests/tests");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let is_target = |path: &PathBuf| {
        path.extension().is_some_and(|it| it == "rs") || path.join("main.rs").is_file()
    };
    let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(is_target).filter_map(name).collect();
    names.sort();
    Ok(names)
}

fn observe(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let status = exec::observe(command, &mut io::stdout(), |line| tally.read(line))?;
    if !status.success() {
        eprintln!("xtask: `{}` failed: {status}", exec::shown(command));
    }
    Ok(status.success())
}
