//! `cargo xtask kernels`: ctguard on other kernels, each in a virtual machine of its own.

mod image;
pub(crate) mod list;
pub(crate) mod machine;
mod modules;
pub(crate) mod outcome;
pub(crate) mod package;
pub(crate) mod programs;
mod table;

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::{ebpf, packages, workspace};
use list::Kernel;
use machine::{Machine, Storage};
use outcome::Outcome;
use programs::Programs;
use table::Trial;

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

    let machines = wanted
        .into_iter()
        .map(|kernel| Ok((kernel, machine(kernel, &programs)?)))
        .collect::<Result<Vec<_>>>()?;
    // Side by side: each has phases in which one of its processors is idle.
    let trials = thread::scope(|scope| {
        let running: Vec<_> = machines
            .into_iter()
            .map(|(kernel, machine)| scope.spawn(move || try_kernel(kernel, machine)))
            .collect();
        running
            .into_iter()
            .map(|trial| trial.join().map_err(|_| anyhow!("a kernel's thread panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
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

/// What a kernel is tried in, and the package that it came from; none where apt has none.
fn machine(kernel: &'static Kernel, programs: &Programs) -> Result<Option<(String, Machine)>> {
    let Some(package) = package::newest(kernel)? else {
        println!("skipped: kernel {}: apt has no {}", kernel.name, kernel.described());
        return Ok(None);
    };
    println!("kernel {} ({package})", kernel.name);
    let unpacked = packages::unpacked(&package)?;
    let directory = workspace::target()?.join("kernels").join(kernel.name);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let image = directory.join("initramfs.cpio");
    image::write(&image, programs, &modules::find(&unpacked)?)?;
    let machine = Machine {
        kernel: package::kernel_image(&unpacked)?,
        storage: Storage::Initramfs(image),
        console: directory.join("console.log"),
    };
    Ok(Some((package, machine)))
}

fn try_kernel(kernel: &'static Kernel, machine: Option<(String, Machine)>) -> Result<Trial> {
    let began = Instant::now();
    let Some((package, machine)) = machine else {
        return Ok(Trial { kernel, package: None, outcome: None, seconds: 0 });
    };
    let outcome = Outcome::of(&machine, kernel.name)?;
    let seconds = began.elapsed().as_secs();
    Ok(Trial { kernel, package: Some(package), outcome: Some(outcome), seconds })
}
