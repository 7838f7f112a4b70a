//! Keeps the regulars across reboots, in a file for each network namespace.
//!
//! `regulars-NAME.jsonl` has lines of JSON. The first is `{"format":2,"as_of":SECONDS}`, with the
//! scores' time since 1970. Then comes a line for each source, the highest score first:
//! `{"source":"192.0.2.1","score":12.5,"usual":[40.2,3.0],"proven":true}`, an IPv6 source as its /64. Readers ignore
//! unknown keys. In format 1, scores were minutes instead of hours, and all sources were
//! proven.
//!
//! NAME is `host` for the initial namespace, and the name in `/run/netns` for others. The inode
//! number would not outlive a reboot. A namespace without a name has no file.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, load};
use ctguard_control::regulars::{Regular, Regulars};
use ctguard_kernel::durable::replace;

const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    as_of: f64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    source: String,
    score: f32,
    #[serde(default)]
    usual: [f32; 2],
    #[serde(default = "yes")]
    proven: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateFile(PathBuf);

impl StateFile {
    /// `None` if the namespace of this thread has no lasting name.
    pub(crate) fn of_this_namespace(directory: &Path) -> Option<Self> {
        lasting_name().map(|name| Self::named(directory, &name))
    }

    fn named(directory: &Path, namespace: &str) -> Self {
        Self(directory.join(format!("regulars-{namespace}.jsonl")))
    }

    pub(crate) fn load(&self) -> Result<Regulars, FileError> {
        load(&self.0, &self.beside("damaged"), "regulars are learnt anew", parse)
    }

    pub(crate) fn save(&self, regulars: &Regulars) -> Result<(), FileError> {
        replace(&self.0, &self.beside("new"), &document(regulars))
            .map_err(FileError::new("write", &self.0))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(".");
        path.push(suffix);
        path.into()
    }
}

fn document(regulars: &Regulars) -> Vec<u8> {
    let (ranked, as_of) = regulars.ranked();
    let mut bytes = Vec::new();
    let header = Header { format: FORMAT, as_of: as_of.as_secs_f64() };
    write_line(&mut bytes, &header);
    for (source, Regular { score, usual, is_proven: proven }) in ranked {
        write_line(&mut bytes, &Line { source: source.to_string(), score, usual, proven });
    }
    bytes
}

fn write_line(bytes: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, line).expect("a vector takes all, and the keys are text");
    bytes.push(b'\n');
}

fn parse(bytes: &[u8]) -> anyhow::Result<Regulars> {
    let mut lines = str::from_utf8(bytes)?.lines();
    let header: Header = serde_json::from_str(lines.next().context("it is empty")?)?;
    let per_hour = match header.format {
        1 => 60.0,
        FORMAT => 1.0,
        other => bail!("format {other} instead of {FORMAT}"),
    };
    let as_of = Duration::try_from_secs_f64(header.as_of)?;
    let mut scores = Vec::new();
    for line in lines {
        let line: Line = serde_json::from_str(line)?;
        let source = line.source.parse()?;
        let Line { score, usual, proven: is_proven, .. } = line;
        let regular = Regular { score: score / per_hour, usual, is_proven };
        scores.push((source, regular));
        ensure!(scores.len() <= Regulars::CAPACITY, "it has too many sources");
    }
    Ok(Regulars::restore(scores, as_of))
}

const fn yes() -> bool {
    true
}

/// A name of this thread's network namespace that outlives a reboot.
pub(crate) fn lasting_name() -> Option<String> {
    // Only who has all capabilities may look at `/proc/1/ns/net`. These files differ as namespaces do.
    let host = inode(Path::new("/proc/1/net/dev"));
    if host.is_some() && host == inode(Path::new("/proc/thread-self/net/dev")) {
        return Some("host".to_owned());
    }
    namespace_name(inode(Path::new("/proc/thread-self/ns/net"))?, Path::new("/run/netns"))
}

fn namespace_name(own: (u64, u64), names: &Path) -> Option<String> {
    let mut own_names: Vec<_> = fs::read_dir(names)
        .ok()?
        .flatten()
        .filter(|entry| inode(&entry.path()) == Some(own))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    own_names.sort();
    own_names.first().map(|name| format!("netns-{name}"))
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

#[cfg(test)]
mod tests;
