//! `cargo xtask package`: packages for Debian and for distributions with RPM, of one static binary.

pub(crate) mod binary;
mod contents;
pub(crate) mod deb;
mod rpm;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{packages, workspace};
use binary::Architecture;
pub(crate) use contents::Contents;

/// What is packaged.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Processors to build for [default: all]
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Vec<Architecture>,
}

/// Builds the packages and prints where they are.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let architectures = match options.arch.as_slice() {
        [] => &Architecture::ALL,
        chosen => chosen,
    };
    packages::ensure(packages::PACKAGING)?;
    for architecture in architectures {
        let contents = Contents::of(&binary::build(*architecture)?, *architecture)?;
        for package in [deb::build(&contents, &version()?)?, rpm::build(&contents, &version()?)?] {
            let size = fs::metadata(&package).map_or(0, |metadata| metadata.len()) / 1024;
            println!("{size} KiB  {}", package.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The version of the workspace.
pub(crate) fn version() -> Result<String> {
    of_workspace("version")
}

fn of_workspace(key: &str) -> Result<String> {
    let path = workspace::root()?.join("Cargo.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: toml::Table = toml::from_str(&text)?;
    let value = manifest.get("workspace").and_then(|it| it.get("package")?.get(key)?.as_str());
    value.map(str::to_owned).with_context(|| format!("Cargo.toml has no workspace.package.{key}"))
}

/// Where packages are made.
fn directory() -> Result<PathBuf> {
    let directory = workspace::target()?.join("packages");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}
