//! The file beside a stored object: what it was made of, and with what.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::sources::sha256;

/// Where a stored object comes from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Digest of the sources.
    pub(super) sources: String,
    /// Digest of the object itself, so that the two cannot be mixed up by a merge.
    object: String,
    pub(super) versions: Versions,
}

/// What built an object; another compiler makes other bytes of the same sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Versions {
    pub(super) rustc: String,
    pub(super) bpf_linker: String,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.rustc, self.bpf_linker)
    }
}

impl Record {
    pub(super) fn new(sources: &str, object: &[u8], versions: &Versions) -> Self {
        Self { sources: sources.to_owned(), object: sha256(object), versions: versions.clone() }
    }

    /// The record of the object stored at `object`, or `None` where it has none.
    pub(super) fn read(object: &Path) -> Result<Option<Self>> {
        let path = beside(object);
        let Some(text) = super::read_if_present(&path)? else {
            return Ok(None);
        };
        toml::from_str(&text).with_context(|| format!("{} is no record of sources", path.display()))
    }

    pub(super) fn write(&self, object: &Path) -> Result<()> {
        let path = beside(object);
        let text = toml::to_string(self).context("cannot write down a record")?;
        let text = format!(
            "# Written by `cargo xtask ebpf`, checked by `cargo xtask ebpf --check`.\n{text}"
        );
        fs::write(&path, text).with_context(|| super::cannot_write(&path))
    }

    pub(super) fn describes(&self, object: &[u8]) -> bool {
        self.object == sha256(object)
    }
}

fn beside(object: &Path) -> PathBuf {
    object.with_extension("sources.sha256")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let versions =
            Versions { rustc: "rustc 1.0".to_owned(), bpf_linker: "bpf-linker 1.0".to_owned() };
        Record::new("abc", b"object", &versions)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let text = toml::to_string(&record()).unwrap();
        assert_eq!(toml::from_str::<Record>(&text).unwrap(), record());
    }

    #[test]
    fn a_record_describes_its_own_object_only() {
        assert!(record().describes(b"object"));
        assert!(!record().describes(b"another"));
    }

    #[test]
    fn the_record_lies_beside_its_object() {
        assert_eq!(beside(Path::new("ebpf/lab.bpf.o")), Path::new("ebpf/lab.bpf.sources.sha256"));
    }
}
