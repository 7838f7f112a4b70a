//! The machine's disk: a minimal Debian root, a kernel's modules, packages of ctguard to install, and
//! what it does at a boot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{debian, exec, workspace};

/// Besides the packages that every Debian machine has.
const PACKAGES: &[&str] = &["systemd", "systemd-sysv", "udev", "kmod", "iproute2"];
/// More than it needs: what nobody writes takes no room.
const SIZE: &str = "1G";

const SCRIPT: &str = include_str!("machine.sh");
const SCRIPT_PATH: &str = "usr/local/sbin/at-boot";
const SERVICE: &str = "[Unit]
After=systemd-sysctl.service systemd-modules-load.service systemd-udevd.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/at-boot
";
const SERVICE_PATH: &str = "etc/systemd/system/at-boot.service";
const WANTED_BY: &str = "etc/systemd/system/multi-user.target.wants/at-boot.service";

/// The package that the machine installs first, and the one that it upgrades to.
pub(super) struct Debs {
    pub(super) first: PathBuf,
    pub(super) upgrade: PathBuf,
}

/// A new disk, with these packages and the modules of an unpacked kernel.
pub(super) fn make(debs: &Debs, kernel: &Path) -> Result<PathBuf> {
    let directory = workspace::target()?.join("boot");
    let root = debian::root(&directory.join(debian::RELEASE), PACKAGES)?;
    copy_modules(&kernel.join("lib/modules"), &root)?;
    copy(&debs.first, &root.join("srv/first.deb"))?;
    copy(&debs.upgrade, &root.join("srv/upgrade.deb"))?;
    write(&root.join(SCRIPT_PATH), SCRIPT, 0o755)?;
    write(&root.join(SERVICE_PATH), SERVICE, 0o644)?;
    link("../at-boot.service", &root.join(WANTED_BY))?;

    let image = directory.join("disk.ext4");
    remove(&image)?;
    let mut mke2fs = Command::new(exec::find("mke2fs").context("there is no mke2fs")?);
    mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&image).arg(SIZE);
    exec::run_quietly(&mut mke2fs)?;
    Ok(image)
}

/// Copies the modules, and has them found by name.
fn copy_modules(from: &Path, root: &Path) -> Result<()> {
    let to = root.join("usr/lib/modules");
    workspace::remove_directory(&to)?;
    exec::run_quietly(Command::new("cp").arg("-r").arg(from).arg(&to))?;
    let releases =
        fs::read_dir(&to).with_context(|| format!("cannot list {}", to.display()))?.flatten();
    for release in releases {
        let mut depmod = Command::new("chroot");
        exec::run_quietly(depmod.arg(root).arg("depmod").arg(release.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).with_context(|| format!("cannot copy to {}", to.display()))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    fs::write(path, text).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(failed)
}

fn link(to: &str, path: &Path) -> Result<()> {
    remove(path)?;
    std::os::unix::fs::symlink(to, path).with_context(|| format!("cannot make {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    if path.is_symlink() || path.exists() {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
