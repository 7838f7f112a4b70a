//! A package for Debian and Ubuntu, by the distribution's own dpkg-deb.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::contents::{Contents, write};
use super::{directory, of_workspace};
use crate::exec;

const CONTROL: &str = include_str!("../../../packaging/debian/control");
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../../../packaging/debian/postinst")),
    ("prerm", include_str!("../../../packaging/debian/prerm")),
    ("postrm", include_str!("../../../packaging/debian/postrm")),
];

/// Builds it, as this version.
pub(crate) fn build(contents: &Contents, version: &str) -> Result<PathBuf> {
    let architecture = contents.architecture.deb();
    let control = contents.root.join("DEBIAN");
    let bytes = exec::output(Command::new("du").arg("-ks").arg(&contents.root))?;
    let size = bytes.split_whitespace().next().context("du tells no size")?;
    let text = CONTROL
        .replace("{version}", version)
        .replace("{architecture}", architecture)
        .replace("{homepage}", &of_workspace("repository")?)
        .replace("{size}", size);
    write(&control.join("control"), &text)?;
    for (name, script) in SCRIPTS {
        let path = control.join(name);
        write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot change {}", path.display()))?;
    }
    let package = directory()?.join(format!("ctguard_{version}_{architecture}.deb"));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--build"]).arg(&contents.root).arg(&package);
    exec::run_quietly(&mut dpkg)?;
    fs::remove_dir_all(&control).with_context(|| format!("cannot remove {}", control.display()))?;
    Ok(package)
}
