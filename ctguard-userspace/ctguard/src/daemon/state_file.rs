//! What outlives the daemon: regulars over reboots, in a file of its own for each namespace.
//!
//! `regulars-NAME.jsonl`, lines of JSON. The first is the header, `{"format":1,"as_of":SECONDS}`
//! with the time since 1970 that the scores are of; then one for each source, the highest score
//! first: `{"source":"192.0.2.1","score":12.5}`, an IPv6 source as its prefix of 64 bits. Readers of
//! format 1 pass over keys that they do not know.
//!
//! A namespace's inode number does not outlive a reboot, so the file is named after what does: the
//! initial namespace is `host`; another is what `/run/netns` calls it; one without a name has no
//! memory.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::Utf8Error,
    time::{Duration, TryFromFloatSecsError},
};

use log::warn;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use ctguard_control::{regulars::Regulars, sources::NoScope};
use ctguard_kernel::durable::replace;

const FORMAT: u32 = 1;
/// Of [`Regulars::CAPACITY`] lines, each shorter than 100 bytes.
const LONGEST: u64 = 1 << 21;
const DAMAGED: &str = "damaged";

/// Why the memory is not saved or not read.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub(crate) struct StateError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What is wrong with a file's content.
#[derive(Debug, Error)]
enum Damage {
    #[error("it is empty")]
    Empty,
    #[error("it is no text")]
    NoText(#[from] Utf8Error),
    #[error("a line is no JSON of its kind: {0}")]
    Line(#[from] serde_json::Error),
    #[error("it is of format {0}, and not of {FORMAT}")]
    Format(u32),
    #[error("its time is none: {0}")]
    Time(#[from] TryFromFloatSecsError),
    #[error("a source {0}")]
    Source(#[from] NoScope),
    #[error("it has more than {} sources", Regulars::CAPACITY)]
    TooLong,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    as_of: f64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    source: String,
    score: f64,
}

/// The file that a namespace's regulars are kept in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateFile(PathBuf);

impl StateFile {
    /// In `directory`, for the namespace of this thread; `None` where it has no lasting name.
    pub(crate) fn of_this_namespace(directory: &Path) -> Option<Self> {
        let own = inode(Path::new("/proc/thread-self/ns/net"))?;
        namespace_name(own, Path::new("/run/netns")).map(|name| Self::named(directory, &name))
    }

    fn named(directory: &Path, namespace: &str) -> Self {
        Self(directory.join(format!("regulars-{namespace}.jsonl")))
    }

    /// What was saved last, or nothing. A damaged file is moved aside, for it is no reason not to
    /// guard.
    pub(crate) fn load(&self) -> Result<Regulars, StateError> {
        let bytes = match self.read() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Regulars::default()),
            Err(source) => return Err(self.error("read", source)),
        };
        parse(&bytes).or_else(|damage| {
            let aside = self.beside(DAMAGED);
            fs::rename(&self.0, &aside).map_err(|source| self.error("move aside", source))?;
            warn!(
                "{} is damaged ({damage}) and lies in {} from now on; regulars are learnt anew",
                self.0.display(),
                aside.display()
            );
            Ok(Regulars::default())
        })
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&self.0)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Saves them, all or nothing.
    pub(crate) fn save(&self, regulars: &Regulars) -> Result<(), StateError> {
        replace(&self.0, &self.beside("new"), &document(regulars))
            .map_err(|source| self.error("write", source))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(".");
        path.push(suffix);
        path.into()
    }

    fn error(&self, action: &'static str, source: io::Error) -> StateError {
        StateError { action, path: self.0.clone(), source }
    }
}

fn document(regulars: &Regulars) -> Vec<u8> {
    let (ranked, as_of) = regulars.ranked();
    let mut bytes = Vec::new();
    let header = Header { format: FORMAT, as_of: as_of.as_secs_f64() };
    write_line(&mut bytes, &header);
    for (source, score) in ranked {
        write_line(&mut bytes, &Line { source: source.to_string(), score });
    }
    bytes
}

fn write_line(bytes: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *bytes, line).expect("a vector takes all, and the keys are text");
    bytes.push(b'\n');
}

fn parse(bytes: &[u8]) -> Result<Regulars, Damage> {
    let mut lines = str::from_utf8(bytes)?.lines();
    let header: Header = serde_json::from_str(lines.next().ok_or(Damage::Empty)?)?;
    if header.format != FORMAT {
        return Err(Damage::Format(header.format));
    }
    let as_of = Duration::try_from_secs_f64(header.as_of)?;
    let mut scores = Vec::new();
    for line in lines {
        let line: Line = serde_json::from_str(line)?;
        scores.push((line.source.parse()?, line.score));
        if scores.len() > Regulars::CAPACITY {
            return Err(Damage::TooLong);
        }
    }
    Ok(Regulars::restore(scores, as_of))
}

/// `host`, or what `names` calls the namespace with this inode, in a form that is a file's name.
fn namespace_name(own: (u64, u64), names: &Path) -> Option<String> {
    if inode(Path::new("/proc/1/ns/net")) == Some(own) {
        return Some("host".to_owned());
    }
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
