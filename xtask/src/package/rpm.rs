//! A package for distributions with RPM, by rpmbuild.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::contents::{Contents, write};
use super::{directory, of_workspace};
use crate::{exec, packages, workspace};

const SPEC: &str = include_str!("../../../packaging/rpm/ctguard.spec");

/// Builds it, as this version.
pub(super) fn build(contents: &Contents, version: &str) -> Result<PathBuf> {
    let architecture = contents.architecture.rpm();
    let top = directory()?.join("rpm");
    workspace::remove_directory(&top)?;
    let spec = top.join("ctguard.spec");
    let text = SPEC
        .replace("{version}", version)
        .replace("{homepage}", &of_workspace("repository")?)
        .replace("{files}", &contents.paths()?.join("\n"));
    write(&spec, &text)?;
    // rpmbuild empties the root that it is given.
    let root = top.join("root");
    exec::run_quietly(Command::new("cp").arg("-a").arg(&contents.root).arg(&root))?;
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.arg("-bb").arg("--noprep").arg("--nocheck").arg("--noclean");
    rpmbuild.arg("--target").arg(format!("{architecture}-linux"));
    rpmbuild.arg("--define").arg(format!("_topdir {}", top.display()));
    rpmbuild.arg("--buildroot").arg(&root).arg(&spec);
    exec::run_quietly(&mut rpmbuild)?;
    let built = packages::one_in(&top.join("RPMS").join(architecture), |_| true)?;
    let name = built.file_name().context("a package has a name")?;
    let package = directory()?.join(name);
    fs::rename(&built, &package).with_context(|| format!("cannot make {}", package.display()))?;
    Ok(package)
}
