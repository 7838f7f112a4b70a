//! `cargo xtask boot`: a Debian machine that gets the package, is tuned, loses its power, boots, is
//! reverted, boots again, runs the unit, and upgrades and purges the package, with systemd, udev and
//! kmod, in a virtual machine.

mod disk;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::kernels::machine::{Machine, Storage};
use crate::kernels::outcome::Outcome;
use crate::kernels::{list, package, programs};
use crate::package::binary::Architecture;
use crate::package::{self as product, Contents};
use crate::{packages, privilege, workspace};

/// The kernel of the release whose root it is.
const KERNEL: &str = "6.1";
/// Boots of one machine after each other, by the names that `boot/machine.sh` has for them.
const BOOTS: [&str; 5] = ["boot-new", "boot-tuned", "boot-late", "boot-reverted", "boot-unit"];

/// Boots the machine, and prints the counts as the last line.
pub(crate) fn run() -> Result<ExitCode> {
    let began = Instant::now();
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernel and its machine are x86-64's; this is {}", std::env::consts::ARCH);
    }
    privilege::require_root("boot")?;
    packages::ensure(packages::VIRTUAL_MACHINES)?;
    packages::ensure(packages::DEBIAN_ROOT)?;
    let kernel = list::wanted(&[KERNEL.to_owned()])?;
    let kernel = kernel.first().context("the list of kernels is empty")?;
    let package = package::newest(kernel)?
        .with_context(|| format!("apt has no package {}", kernel.described()))?;
    let unpacked = packages::unpacked(&package)?;
    // It needs no newer C library than the machine's, for that kernel's packages are of its release.
    let contents = Contents::of(&programs::ctguard()?, Architecture::Amd64)?;
    let version = product::version()?;
    let debs = disk::Debs {
        first: product::deb::build(&contents, &version)?,
        // The same files; to dpkg it is an upgrade.
        upgrade: product::deb::build(&contents, &format!("{version}+upgrade"))?,
    };
    let disk = disk::make(&debs, &unpacked)?;

    println!("Debian's kernel is {package}");
    let (mut passed, mut failed) = (0, 0);
    for boot in BOOTS {
        let machine = Machine {
            kernel: package::kernel_image(&unpacked)?,
            storage: Storage::Disk(disk.clone(), boot),
            console: workspace::target()?.join("boot").join(format!("{boot}.log")),
        };
        let outcome = Outcome::of(&machine, boot)?;
        passed += outcome.passed();
        failed += outcome.failed();
    }
    println!("boots took {} s", began.elapsed().as_secs());
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
