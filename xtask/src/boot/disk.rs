//! The machine's disk: a minimal Debian root, a kernel's modules, ctguard, and what it does at a
//! boot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{exec, workspace};

const RELEASE: &str = "bookworm";
/// Besides the packages that every Debian machine has.
const PACKAGES: &str = "systemd,systemd-sysv,udev,kmod";
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

/// A new disk, with this `ctguard` and the modules of an unpacked kernel.
pub(super) fn make(ctguard: &Path, kernel: &Path) -> Result<PathBuf> {
    let directory = workspace::target()?.join("boot");
    let root = debian(&directory)?;
    copy_modules(&kernel.join("lib/modules"), &root)?;
    copy(ctguard, &root.join("usr/local/sbin/ctguard"))?;
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

/// A root as the installer makes it; downloaded unless it was before.
fn debian(directory: &Path) -> Result<PathBuf> {
    let root = directory.join(RELEASE);
    if root.is_dir() {
        return Ok(root);
    }
    let unfinished = directory.join("unfinished");
    workspace::remove_directory(&unfinished)?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    eprintln!("xtask: making a root of Debian {RELEASE}");
    let mut debootstrap = Command::new(exec::find("debootstrap").context("no debootstrap")?);
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), RELEASE]);
    debootstrap.arg(&unfinished).args(mirror());
    exec::run_quietly(&mut debootstrap)?;
    workspace::remove_directory(&unfinished.join("var/cache/apt/archives"))?;
    fs::rename(&unfinished, &root).with_context(|| format!("cannot make {}", root.display()))?;
    Ok(root)
}

/// Where apt has this release from; none, and debootstrap's own, where it has it from nowhere.
fn mirror() -> Option<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(SITE)", &format!("Codename: {RELEASE}")]);
    exec::quiet_output(&mut targets)?.lines().next().map(str::to_owned)
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
