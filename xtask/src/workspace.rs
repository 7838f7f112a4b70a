//! Where things are in this checkout.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

/// The root of the checkout.
pub(crate) fn root() -> Result<PathBuf> {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = PathBuf::from(xtask).join("..");
    root.canonicalize().with_context(|| format!("cannot find the checkout at {}", root.display()))
}

/// Where cargo puts what it builds for this machine.
pub(crate) fn target() -> Result<PathBuf> {
    let chosen = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(root()?.join(chosen))
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove_directory(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// A program that the release build made.
pub(crate) fn release_binary(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("release").join(name))
}

/// Whether this runs unattended, where nothing may be skipped.
pub(crate) fn is_ci() -> bool {
    env::var("CI").is_ok_and(|ci| ci == "true")
}
