//! `cargo xtask kernels`: ctguard on other kernels, each in a virtual machine of its own.

mod image;
mod list;
mod machine;
mod modules;
mod outcome;
mod package;
mod programs;
mod table;

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{ebpf, packages, workspace};
use list::Kernel;
use machine::{End, Machine};
use outcome::Outcome;
use programs::Programs;
use table::Trial;

/// Lines of a machine's console that are shown when a step failed.
const CONSOLE_TAIL: usize = 25;

/// Which kernels are wanted.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this one, as `6.1`; may be given several times
    #[arg(long = "kernel", value_name = "NAME")]
    names: Vec<String>,
}

/// Tries every kernel and prints the counts as the last line.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let began = Instant::now();
    let wanted = list::wanted(&options.names)?;
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernels and their machine are x86-64's; this is {}", std::env::consts::ARCH);
    }
    packages::ensure(packages::KERNEL_TESTS)?;
    packages::ensure(packages::VIRTUAL_MACHINES)?;
    ebpf::warn_if_stale()?;
    let programs = programs::build()?;

    let mut trials = Vec::new();
    for kernel in wanted {
        trials.push(try_kernel(kernel, &programs)?);
    }
    println!("\n{}\n", table::of(&trials));
    println!("kernels took {} s", began.elapsed().as_secs());
    let skipped = trials.iter().filter(|trial| trial.outcome.is_none()).count();
    let refused = workspace::is_ci() && skipped > 0;
    if refused {
        println!("with CI=true no kernel may be skipped");
    }
    let outcomes = || trials.iter().filter_map(|trial| trial.outcome.as_ref());
    let passed: usize = outcomes().map(Outcome::passed).sum();
    let failed: usize = outcomes().map(Outcome::failed).sum();
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 && !refused { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_kernel(kernel: &'static Kernel, programs: &Programs) -> Result<Trial> {
    let began = Instant::now();
    let Some(package) = package::newest(kernel)? else {
        println!("skipped: kernel {}: apt has no {}", kernel.name, kernel.described());
        return Ok(Trial { kernel, package: None, outcome: None, seconds: 0 });
    };
    println!("kernel {} ({package})", kernel.name);
    let unpacked = package::unpacked(&package)?;
    let directory = workspace::target()?.join("kernels").join(kernel.name);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let machine = Machine {
        kernel: package::kernel_image(&unpacked)?,
        image: directory.join("initramfs.cpio"),
        console: directory.join("console.log"),
    };
    image::write(&machine.image, programs, &modules::find(&unpacked)?)?;

    let mut outcome = Outcome::default();
    let end = machine.run(|line| {
        if let Some(step) = outcome.read(line) {
            println!("  {step}");
        }
    })?;
    let unfinished = match end {
        End::PoweredOff => "the machine ended before this step did".to_owned(),
        End::TimedOut => format!("the machine was ended after {} s", machine::PATIENCE.as_secs()),
    };
    if let Some(step) = outcome.end(&unfinished) {
        println!("  {step}");
    }
    if outcome.failed() > 0 {
        println!("  the last lines of its console, all in {}:", machine.console.display());
        println!("{}", machine.console_tail(CONSOLE_TAIL)?);
    }
    let seconds = began.elapsed().as_secs();
    Ok(Trial { kernel, package: Some(package), outcome: Some(outcome), seconds })
}
