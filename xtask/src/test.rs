//! `cargo xtask test`: every test of the workspace, counted, with each skipped one named.

mod tally;

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{ebpf, exec, packages, privilege, workspace};
use tally::Tally;

/// The crate whose integration tests need root and a kernel.
const KERNEL_CRATE: &str = "ctguard-tests";

/// Those of them that flood a router for minutes, and need the machine for themselves.
const LABS: [&str; 5] = ["enforced", "guarantee", "lab", "rows", "stopped"];

/// So many tests that need a kernel or flood a router are run once more when they fail. Those that
/// fail on a machine whose processors were taken away pass then; more than these are a fault.
const RUN_AGAIN: usize = 3;

/// Which tests are wanted.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out the lab, which floods a router in network namespaces for minutes
    #[arg(long)]
    no_lab: bool,
    /// Run the lab alone
    #[arg(long, conflicts_with = "no_lab")]
    only_lab: bool,
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

    let targets = test_targets()?;
    let mut tally = Tally::default();
    let mut passed = true;
    if !options.only_lab {
        eprintln!("xtask: tests that need no root");
        let mut tests = host_tests(&targets)?;
        match packages::unpacked_all(packages::FOR_DOCTOR) {
            Ok(directory) => {
                tests.env("CTGUARD_UNPACKED", directory);
            }
            // The test that needs them says so itself.
            Err(reason) => eprintln!("xtask: note: {reason:#}"),
        }
        passed &= observe(&mut tests, &mut tally)?;
        passed &= observe(cargo_test()?.arg("--doc"), &mut tally)?;
    }
    let (labs, kernels): (Vec<_>, Vec<_>) = targets
        .iter()
        .filter(|target| target.needs_kernel)
        .partition(|target| LABS.contains(&target.name.as_str()));
    if !options.only_lab {
        eprintln!("xtask: tests that need root and a kernel");
        let path = path_with(&["prometheus", "crowdsec"])?;
        let tests = |targets: &[&TestTarget]| {
            let mut tests = kernel_tests(cargo_test()?, targets);
            tests.env("PATH", &path);
            Ok(tests)
        };
        passed &= observe_twice(tests, &kernels, &mut tally)?;
    }
    if !options.no_lab {
        eprintln!("xtask: floods");
        let tests = |targets: &[&TestTarget]| Ok(kernel_tests(lab_test()?, targets));
        passed &= observe_twice(tests, &labs, &mut tally)?;
    }

    for test in tally.passed_again() {
        println!("passed only when it was run again: {test}");
    }
    println!("seconds of the slowest test binaries: {}", tally.slowest());
    for skip in tally.skipped() {
        println!("skipped: {skip}");
    }
    let refused = workspace::is_ci() && !tally.skipped().is_empty();
    if refused {
        println!("with CI=true no test may be skipped");
    }
    println!("{tally}");
    let passed = passed && !tally.has_failures() && !refused;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the tests find programs: these services are not installed, because that would start them.
fn path_with(services: &[&str]) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut programs: Vec<_> = env::split_paths(&path).collect();
    for service in services {
        match packages::unpacked(service) {
            Ok(directory) => programs.push(directory.join("usr/bin")),
            // The tests that need it say so themselves.
            Err(reason) => eprintln!("xtask: note: {reason:#}"),
        }
    }
    Ok(env::join_paths(programs)?)
}

/// Tests of the whole workspace: for a part of it cargo would build some dependencies once more, with
/// the features that this part asks for.
fn cargo_test() -> Result<Command> {
    let mut cargo = exec::cargo()?;
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    Ok(cargo)
}

fn host_tests(targets: &[TestTarget]) -> Result<Command> {
    let mut cargo = cargo_test()?;
    cargo.args(["--lib", "--bins"]);
    for target in targets.iter().filter(|target| !target.needs_kernel) {
        cargo.args(["--test", &target.name]);
    }
    Ok(cargo)
}

/// Tests of the lab, whose flood, clients and servers share a processor with the daemon: in a
/// development build, with libraries that are not optimised, they keep themselves waiting.
fn lab_test() -> Result<Command> {
    let mut cargo = exec::cargo()?;
    cargo.args(["test", "--release", "--package", KERNEL_CRATE, "--no-fail-fast"]);
    Ok(cargo)
}

fn kernel_tests(mut cargo: Command, targets: &[&TestTarget]) -> Command {
    if !privilege::is_root()
        && let Some(sudo) = exec::find("sudo")
    {
        // Cargo builds as the caller; only the tests themselves become root.
        cargo.arg("--config").arg(format!("target.'cfg(all())'.runner = '{} -E'", sudo.display()));
    }
    for target in targets {
        cargo.args(["--test", &target.name]);
    }
    // A passing test tells that it skipped itself only in its output; and no test may disturb the
    // load or the timing of another.
    cargo.args(["--", "--show-output", "--test-threads=1"]);
    cargo
}

/// A binary of integration tests.
struct TestTarget {
    name: String,
    needs_kernel: bool,
}

fn test_targets() -> Result<Vec<TestTarget>> {
    let mut cargo = exec::cargo()?;
    let metadata = exec::output(cargo.args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("cannot read cargo's metadata")?;
    let targets = metadata.packages.into_iter().flat_map(|package| {
        let needs_kernel = package.name == KERNEL_CRATE;
        let tests = package.targets.into_iter().filter(|target| target.kind == ["test"]);
        tests.map(move |target| TestTarget { name: target.name, needs_kernel })
    });
    Ok(targets.collect())
}

/// As much of `cargo metadata` as is needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Runs the tests of these targets, and those that fail once more if they are few.
fn observe_twice(
    tests: impl Fn(&[&TestTarget]) -> Result<Command>,
    targets: &[&TestTarget],
    tally: &mut Tally,
) -> Result<bool> {
    let before = tally.failures().map_or(0, <[_]>::len);
    let mut first = tests(targets)?;
    if observe(&mut first, tally)? {
        return Ok(true);
    }
    let failed = tally.failures().and_then(|failures| failures.get(before..));
    let failed = failed.filter(|failed| (1..=RUN_AGAIN).contains(&failed.len()));
    let Some(failed) = failed.map(<[_]>::to_vec) else { return Ok(false) };
    let mut passed_again = Vec::new();
    for failure in &failed {
        eprintln!("xtask: once more: {failure}");
        let target = targets.iter().find(|target| target.name == failure.binary);
        let Some(target) = target else { continue };
        let mut again = Tally::default();
        let mut command = tests(&[target])?;
        if observe(command.args(["--exact", &failure.test]), &mut again)? && again.has_passed(1) {
            passed_again.push(failure.clone());
        }
    }
    let all = passed_again.len() == failed.len();
    tally.pass_again(passed_again);
    Ok(all)
}

fn observe(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let status = exec::observe(command, &mut io::stdout(), |line| tally.read(line))?;
    if !status.success() {
        eprintln!("xtask: `{}` failed: {status}", exec::shown(command));
    }
    Ok(status.success())
}
