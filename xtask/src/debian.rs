//! A minimal Debian root in a directory, made by debootstrap.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{exec, workspace};

/// Which Debian.
pub(crate) const RELEASE: &str = "bookworm";

/// A root at `path` as the installer makes it, with these packages besides; downloaded unless it
/// was before.
pub(crate) fn root(path: &Path, packages: &[&str]) -> Result<PathBuf> {
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    let directory = path.parent().context("a root lies in a directory")?;
    let unfinished = directory.join("unfinished");
    // debootstrap that was ended leaves it mounted.
    exec::succeeds(Command::new("umount").arg(unfinished.join("proc")));
    workspace::remove_directory(&unfinished)?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    eprintln!("xtask: making a root of Debian {RELEASE}");
    let mut debootstrap = Command::new(exec::find("debootstrap").context("no debootstrap")?);
    debootstrap.arg("--variant=minbase");
    if !packages.is_empty() {
        debootstrap.arg(format!("--include={}", packages.join(",")));
    }
    debootstrap.arg(RELEASE).arg(&unfinished).args(mirror());
    exec::run_quietly(&mut debootstrap)?;
    workspace::remove_directory(&unfinished.join("var/cache/apt/archives"))?;
    fs::rename(&unfinished, path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path.to_owned())
}

/// Where apt has this release from; none, and debootstrap's own, where it has it from nowhere.
fn mirror() -> Option<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(SITE)", &format!("Codename: {RELEASE}")]);
    exec::quiet_output(&mut targets)?.lines().next().map(str::to_owned)
}
