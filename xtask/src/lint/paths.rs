//! No file may name a path of the machine it was written or built on.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{exec, workspace};

/// Refuses files that name a home directory, or where this checkout and cargo's files lie.
pub(super) fn check() -> Result<()> {
    let here = [
        Some(workspace::root()?),
        env::home_dir(),
        variable("CARGO_HOME"),
        variable("RUSTUP_HOME"),
    ];
    let mut git = super::git()?;
    git.args(["grep", "--untracked", "--line-number", "--fixed-strings"]);
    for path in forbidden(here.into_iter().flatten()) {
        git.arg("-e").arg(path);
    }
    // It fails when it finds nothing.
    if let Some(lines) = exec::quiet_output(&mut git) {
        bail!("these lines name paths of a machine:\n{lines}");
    }
    Ok(())
}

/// What no file may contain, given directories of this machine.
fn forbidden(here: impl Iterator<Item = PathBuf>) -> BTreeSet<String> {
    // Put together here, lest this file itself be found.
    let homes = ["home", "root", "Users"].map(|homes| format!("/{homes}/"));
    let here = here.filter(|path| is_telling(path)).map(|path| format!("{}/", path.display()));
    homes.into_iter().chain(here).collect()
}

/// Whether a path belongs to one machine: `/` and `/tmp` are everywhere.
fn is_telling(path: &Path) -> bool {
    path.is_absolute() && path.components().count() > 2
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_and_all_homes_are_forbidden() {
        let forbidden = forbidden([PathBuf::from("/some/checkout")].into_iter());
        assert!(forbidden.contains("/some/checkout/"));
        assert!(forbidden.contains(&["", "home", ""].join("/")));
    }

    #[test]
    fn directories_that_every_machine_has_are_allowed() {
        assert!(!is_telling(Path::new("/")) && !is_telling(Path::new("/tmp")));
    }
}
