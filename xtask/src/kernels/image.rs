//! The guest's initial file system: programs, libraries and modules in a cpio archive.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cpio::newc;

use super::programs::Programs;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

/// Writes the archive to `path`; `modules` are files by their place in the guest.
pub(super) fn write(path: &Path, programs: &Programs, modules: &[(String, PathBuf)]) -> Result<()> {
    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive { writer: BufWriter::new(file), directories: BTreeSet::new() };
    archive.add("init", &programs.init)?;
    archive.add("bin/ctguard", &programs.ctguard)?;
    archive.add("bin/verdicts", &programs.verdicts)?;
    for tool in &programs.tools {
        let name = tool.file_name().unwrap_or_default().to_string_lossy();
        archive.add(&format!("bin/{name}"), tool)?;
    }
    for library in &programs.libraries {
        archive.add(library.to_string_lossy().trim_start_matches('/'), library)?;
    }
    for (name, file) in modules {
        archive.add(name, file)?;
    }
    newc::trailer(archive.writer)
        .and_then(|mut writer| writer.flush())
        .with_context(|| format!("cannot write {}", path.display()))
}

struct Archive<W> {
    writer: W,
    /// Those that are in it.
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Adds `file` as `name`, after the directories that lead there.
    fn add(&mut self, name: &str, file: &Path) -> Result<()> {
        let slashes: Vec<_> = name.match_indices('/').map(|(at, _)| at).collect();
        for at in slashes {
            let directory = &name[..at];
            if self.directories.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY, &[])?;
            }
        }
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.entry(name, EXECUTABLE, &bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let failed = || format!("cannot archive {name}");
        let size = u32::try_from(bytes.len()).with_context(failed)?;
        let mut entry = newc::Builder::new(name).mode(mode).write(&mut self.writer, size);
        entry.write_all(bytes).with_context(failed)?;
        entry.finish().map(|_| ()).with_context(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_once() {
        let mut archive = Archive { writer: Vec::new(), directories: BTreeSet::new() };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        archive.add("a/b/one", &file).unwrap();
        archive.add("a/b/two", &file).unwrap();
        let bytes = newc::trailer(archive.writer).unwrap();

        let (mut rest, mut names) = (bytes.as_slice(), Vec::new());
        loop {
            let entry = newc::Reader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            names.push(entry.entry().name().to_owned());
            rest = entry.finish().unwrap();
        }
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two"]);
    }
}
