//! The virtual machine: its file systems, its modules, its end.

use std::{
    convert::Infallible,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot, uname},
};

use super::report::Report;
use crate::exec;

/// What is loaded at once, and what only once ctguard was tried without; the host puts files here
/// whose names sort in the order of loading.
const BASE_MODULES: &str = "/modules/base";
const CONNTRACK_MODULES: &str = "/modules/conntrack";
const CONNTRACK_BTF: &str = "/sys/kernel/btf/nf_conntrack";
/// `MODULE_INIT_COMPRESSED_FILE` (`linux/module.h`), Linux 5.17.
const COMPRESSED: libc::c_int = 4;

/// Mounts what the tools need and loads what a network takes; all but conntrack.
pub(super) fn prepare() -> Result<()> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(target).with_context(|| format!("cannot make {target}"))?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {target}"))?;
    }
    // Where some versions of iproute2 keep network namespaces.
    fs::create_dir_all("/var").context("cannot make /var")?;
    symlink("/run", "/var/run").context("cannot link /var/run")?;
    load_all(Path::new(BASE_MODULES))?;
    exec::require_tools()
}

/// Loads conntrack and what works on it.
pub(super) fn load_conntrack(report: &mut Report) -> Result<()> {
    load_all(Path::new(CONNTRACK_MODULES))?;
    report.fact("release", release())?;
    ensure!(Path::new(CONNTRACK_BTF).exists(), "{CONNTRACK_BTF} is missing");
    Ok(())
}

/// Whether this kernel is at least `major.minor`.
pub(super) fn is_at_least(major: u32, minor: u32) -> Result<bool> {
    let release = release();
    let mut numbers = release.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(this_major)), Some(Ok(this_minor))) => {
            Ok((this_major, this_minor) >= (major, minor))
        }
        _ => Err(anyhow!("{release} is no release of Linux")),
    }
}

/// Ends the machine, and with it this process.
pub(super) fn power_off() -> Result<Infallible> {
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).context("cannot power off")?;
    Err(anyhow!("the machine is still on"))
}

fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

fn load_all(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().try_for_each(|file| load(file))
}

fn load(file: &Path) -> Result<()> {
    let plain = file.extension().is_some_and(|extension| extension == "ko");
    let flags = if plain { 0 } else { COMPRESSED };
    let failed = || format!("cannot load {}", file.display());
    finit_module(File::open(file).with_context(failed)?, c"", flags).with_context(failed)
}
