//! Kernels among the distribution's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::list::Kernel;
use crate::{exec, packages};

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

/// The compressed kernel of an unpacked package.
pub(crate) fn kernel_image(unpacked: &Path) -> Result<PathBuf> {
    packages::one_in(&unpacked.join("boot"), |name| name.starts_with("vmlinuz"))
}
