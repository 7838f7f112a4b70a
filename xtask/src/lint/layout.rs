//! What may lie at the top level of the repository: a newcomer should take it in at a glance.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// Names that start with a dot are allowed as well.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-GPL-2.0",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "ctguard-ebpf",
    "ctguard-userspace",
    "deny.toml",
    "docs",
    "findings",
    "packaging",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// Refuses top-level entries that have no place there.
pub(super) fn check(files: &[String]) -> Result<()> {
    let strangers = strangers(files.iter().map(String::as_str));
    if !strangers.is_empty() {
        let names = strangers.into_iter().collect::<Vec<_>>().join(", ");
        bail!("not at the top level, please: {names} (docs/ and packaging/ hold what is no code)");
    }
    Ok(())
}

fn strangers<'f>(files: impl Iterator<Item = &'f str>) -> BTreeSet<&'f str> {
    let top_level = files.filter_map(|file| file.split('/').next());
    top_level.filter(|entry| !entry.starts_with('.') && !TOP_LEVEL.contains(entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_and_usual_files_belong_at_the_top_level() {
        let files = ["Cargo.toml", "ctguard-ebpf/layout/src/lib.rs", ".ci/run", "docs/notes.md"];
        assert!(strangers(files.into_iter()).is_empty());
    }

    #[test]
    fn another_crate_does_not_belong_at_the_top_level() {
        let files = ["Cargo.toml", "ctguard-common/Cargo.toml", "ctguard-common/src/lib.rs"];
        assert_eq!(strangers(files.into_iter()), BTreeSet::from(["ctguard-common"]));
    }

    #[test]
    fn a_name_is_allowed_at_the_top_level_only_whole() {
        assert_eq!(strangers(["tests.rs"].into_iter()), BTreeSet::from(["tests.rs"]));
    }
}
