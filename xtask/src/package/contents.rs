//! The files of a package, each where it is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::binary::Architecture;
use super::directory;
use crate::{exec, workspace};

/// From the repository, besides the binary and what it tells of itself.
const FILES: [(&str, &str); 9] = [
    ("packaging/ctguard.service", "usr/lib/systemd/system/ctguard.service"),
    ("packaging/ctguard@.service", "usr/lib/systemd/system/ctguard@.service"),
    ("packaging/ctguard-metrics.service", "usr/lib/systemd/system/ctguard-metrics.service"),
    ("packaging/ctguard.toml", "usr/share/ctguard/ctguard.toml"),
    ("packaging/prometheus/ctguard.rules.yml", "usr/share/ctguard/prometheus/ctguard.rules.yml"),
    ("packaging/prometheus/alertmanager.yml", "usr/share/ctguard/prometheus/alertmanager.yml"),
    ("packaging/grafana/ctguard.json", "usr/share/ctguard/grafana/ctguard.json"),
    ("CHANGELOG.md", "usr/share/doc/ctguard/changelog"),
    ("README.md", "usr/share/doc/ctguard/README.md"),
];
const COPYRIGHT: &str = include_str!("../../../packaging/debian/copyright");
const LICENCE: &str = include_str!("../../../LICENSE-MIT");

/// As `ctguard reference` names them, and as shells look for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("ctguard.bash", "usr/share/bash-completion/completions/ctguard"),
    ("ctguard.fish", "usr/share/fish/vendor_completions.d/ctguard.fish"),
    ("_ctguard", "usr/share/zsh/site-functions/_ctguard"),
];

/// A directory that has the files of the package as they are installed.
pub(crate) struct Contents {
    pub(super) root: PathBuf,
    pub(super) architecture: Architecture,
}

impl Contents {
    /// Lays them out anew around this binary.
    pub(crate) fn of(binary: &Path, architecture: Architecture) -> Result<Self> {
        let root = directory()?.join(format!("root-{}", architecture.deb()));
        workspace::remove_directory(&root)?;
        place(binary, &root.join("usr/bin/ctguard"), 0o755)?;
        let repository = workspace::root()?;
        for (from, to) in FILES {
            place(&repository.join(from), &root.join(to), 0o644)?;
        }
        let docs = list(&repository.join("docs"))?;
        for page in docs.iter().filter(|file| file.extension().is_some_and(|it| it == "md")) {
            let name = page.file_name().unwrap_or_default();
            place(page, &root.join("usr/share/doc/ctguard/docs").join(name), 0o644)?;
        }
        let copyright = root.join("usr/share/doc/ctguard/copyright");
        write(&copyright, &copyright_text(&super::of_workspace("repository")?))?;
        compress(&root.join("usr/share/doc/ctguard/changelog"))?;
        add_reference(&root)?;
        Ok(Self { root, architecture })
    }

    /// Their paths in a machine, sorted.
    pub(super) fn paths(&self) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for path in list(&directory)? {
                if path.is_dir() {
                    directories.push(path);
                } else {
                    paths.push(format!("/{}", path.strip_prefix(&self.root)?.display()));
                }
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// Manual pages and completions, which ctguard itself writes.
fn add_reference(root: &Path) -> Result<()> {
    let reference = directory()?.join("reference");
    workspace::remove_directory(&reference)?;
    eprintln!("xtask: writing manual pages and completions");
    let mut cargo = exec::cargo()?;
    cargo.args(["run", "--quiet", "--package", "ctguard", "--features", "reference"]);
    exec::run(cargo.args(["--", "reference"]).arg(&reference))?;
    for page in list(&reference.join("man"))? {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (_, section) = name.rsplit_once('.').context("a page's name ends in its section")?;
        let to = root.join(format!("usr/share/man/man{section}/{name}"));
        place(&page, &to, 0o644)?;
        compress(&to)?;
    }
    for (from, to) in COMPLETIONS {
        place(&reference.join("completions").join(from), &root.join(to), 0o644)?;
    }
    Ok(())
}

fn compress(path: &Path) -> Result<()> {
    exec::run_quietly(Command::new("gzip").args(["-9", "--no-name"]).arg(path))
}

fn copyright_text(homepage: &str) -> String {
    let licence = LICENCE.trim_end().lines();
    let licence =
        licence.map(|line| if line.is_empty() { " .".into() } else { format!(" {line}") });
    let licence = licence.collect::<Vec<_>>().join("\n");
    COPYRIGHT.replace("{homepage}", homepage).replace("{mit}", &licence)
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let failed = || format!("cannot copy {} to {}", from.display(), to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    fs::copy(from, to).with_context(failed)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(failed)
}

pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    fs::write(path, text).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).with_context(failed)
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}
