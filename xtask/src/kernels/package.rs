//! Kernels from the distribution's packages, unpacked below the target directory and never
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::list::Kernel;
use crate::{exec, packages, workspace};

/// The name of the newest package of `kernel`, or none where apt has none.
pub(crate) fn newest(kernel: &Kernel) -> Result<Option<String>> {
    let find = || -> Result<Option<String>> {
        let mut search = Command::new("apt-cache");
        search.args(["search", "--names-only", "^linux-image-[0-9]"]);
        let found = exec::output(&mut search)?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        Ok(kernel.newest(names).map(str::to_owned))
    };
    if let Some(found) = find()? {
        return Ok(Some(found));
    }
    packages::refresh()?;
    find()
}

/// Where the package `name` lies unpacked; downloaded unless it was before.
pub(crate) fn unpacked(name: &str) -> Result<PathBuf> {
    let all = workspace::target()?.join("kernels/packages");
    let directory = all.join(name);
    if directory.is_dir() {
        return Ok(directory);
    }
    eprintln!("xtask: downloading {name}");
    // Another xtask may do the same meanwhile.
    let ours = |name: &str| all.join(format!("{name}-{}", std::process::id()));
    let (download, unpacking) = (ours("download"), ours("unpacking"));
    for fresh in [&download, &unpacking] {
        workspace::remove_directory(fresh)?;
        fs::create_dir_all(fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    }
    exec::run_quietly(Command::new("apt-get").current_dir(&download).args(["download", name]))?;
    let archive = one_in(&download, |_| true)?;
    exec::run_quietly(Command::new("dpkg").arg("-x").arg(archive).arg(&unpacking))?;
    if let Err(error) = fs::rename(&unpacking, &directory)
        && !directory.is_dir()
    {
        return Err(error).with_context(|| format!("cannot make {}", directory.display()));
    }
    workspace::remove_directory(&unpacking)?;
    workspace::remove_directory(&download)?;
    Ok(directory)
}

/// The compressed kernel of an unpacked package.
pub(crate) fn kernel_image(unpacked: &Path) -> Result<PathBuf> {
    one_in(&unpacked.join("boot"), |name| name.starts_with("vmlinuz"))
}

fn one_in(directory: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.file_name().is_some_and(|it| is_it(&it.to_string_lossy())));
    found.with_context(|| format!("{} lacks what a package has there", directory.display()))
}
