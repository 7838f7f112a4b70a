//! What tune changed, and the values before: `/var/lib/ctguard/tune.json`, written before the first
//! change, so that even an interrupted run can be reverted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    place::{Place, Relation},
    watch::Before,
};
use crate::host::{self, Host};
use ctguard_kernel::durable;

pub(super) const RECORD: &str = "/var/lib/ctguard/tune.json";
const FORMAT: u32 = 1;
const UNFINISHED: &str = "ctguard-unfinished";

#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

impl FileError {
    pub(super) fn when(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

/// What was changed, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Step {
    Sysctl {
        key: String,
        before: u64,
        then: u64,
        /// Values that tune set before `then`; an interrupted run may have left one.
        #[serde(default)]
        earlier: Vec<u64>,
    },
    /// A file of tune's own, which did not exist.
    File {
        path: String,
        then: String,
        #[serde(default)]
        earlier: Vec<String>,
    },
    /// A directory that did not exist.
    Directory { path: String },
}

/// Everything that a revert has to undo, in the order in which it was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub format: u32,
    /// None for a copy of a machine.
    #[serde(default)]
    pub place: Option<Place>,
    #[serde(default)]
    pub before: Option<Before>,
    #[serde(default)]
    pub last: Vec<Setting>,
    /// An earlier record was lost, and the original values with it.
    #[serde(default)]
    pub forgot: bool,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    pub key: String,
    pub then: u64,
}

impl Record {
    pub(super) fn new(place: Option<Place>) -> Self {
        let (last, steps) = (Vec::new(), Vec::new());
        Self { format: FORMAT, place, before: None, last, forgot: false, steps }
    }

    /// None where nothing was changed.
    pub(super) fn load(host: &Host) -> Result<Option<Self>, FileError> {
        let path = host.path(RECORD);
        let error = FileError::when("read", &path);
        let text = host.text(RECORD).map_err(|unread| error(io::Error::other(unread.reason)))?;
        let Some(text) = text else { return Ok(None) };
        let record: Self = serde_json::from_str(&text).map_err(|source| error(source.into()))?;
        if record.format != FORMAT {
            return Err(error(io::Error::other(format!("it is of format {}", record.format))));
        }
        if record.steps.iter().any(Step::climbs) {
            return Err(error(io::Error::other("a path in it has `..`")));
        }
        Ok(Some(record))
    }

    pub(super) fn save(&self, host: &Host) -> Result<(), FileError> {
        let path = host.path(RECORD);
        let json = serde_json::to_string_pretty(self);
        let json = json.map_err(|error| FileError::when("write", &path)(error.into()))?;
        replace(host, RECORD, &(json + "\n"))
    }

    /// Removes it, and its directory if that is then empty.
    pub(super) fn remove(host: &Host) -> Result<(), FileError> {
        remove(host, RECORD)?;
        // Fails where other files are in it.
        let (directory, _) = RECORD.rsplit_once('/').unwrap_or_default();
        let _ = host.place(directory).and_then(|place| fs::remove_dir(place.path));
        Ok(())
    }

    /// Notes a change to come. The value before the first of several changes is kept.
    pub(super) fn note(&mut self, step: Step) {
        let known = self.steps.iter_mut().find(|known| known.name() == step.name());
        match (known, step) {
            (
                Some(Step::Sysctl { before, then, earlier, .. }),
                Step::Sysctl { before: now, then: new, .. },
            ) => {
                // Somebody set it in between: a revert restores that.
                if now != *then && now != *before && !earlier.contains(&now) {
                    *before = now;
                }
                follow(then, earlier, new);
            }
            (Some(Step::File { then, earlier, .. }), Step::File { then: new, .. }) => {
                follow(then, earlier, new);
            }
            (Some(_), _) => {}
            (None, step) => self.steps.push(step),
        }
    }

    /// Whether everything in it belongs to the last change.
    pub(super) fn is_only_change(&self) -> bool {
        self.steps.iter().all(|step| match step {
            Step::Sysctl { key, earlier, .. } => {
                earlier.is_empty() && self.last.iter().any(|setting| setting.key == *key)
            }
            Step::File { earlier, .. } => earlier.is_empty(),
            Step::Directory { .. } => true,
        })
    }

    pub(super) fn relation(&self, host: &Host) -> Relation {
        self.place.as_ref().map_or(Relation::Same, |place| place.relation(host))
    }

    pub(super) fn wrote(&self, wanted: &str, text: &str) -> bool {
        self.steps.iter().any(|step| {
            matches!(step, Step::File { path, then, earlier }
                if path == wanted && earlier.iter().chain([then]).any(|wrote| wrote == text))
        })
    }

    pub(super) fn has_file(&self, wanted: &str) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::File { path, .. } if path == wanted))
    }
}

fn follow<T: PartialEq>(then: &mut T, earlier: &mut Vec<T>, new: T) {
    if *then != new {
        earlier.push(std::mem::replace(then, new));
    }
}

impl Step {
    pub(super) const fn sysctl(key: String, before: u64, then: u64) -> Self {
        Self::Sysctl { key, before, then, earlier: Vec::new() }
    }

    pub(super) const fn file(path: String, then: String) -> Self {
        Self::File { path, then, earlier: Vec::new() }
    }

    /// Whether it would lead out of the root.
    fn climbs(&self) -> bool {
        !matches!(self, Self::Sysctl { .. }) && self.name().split('/').any(|part| part == "..")
    }

    /// A setting's key, or a path.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Sysctl { key, .. } => key,
            Self::File { path, .. } | Self::Directory { path } => path,
        }
    }
}

/// Writes a file completely or not at all, and durably.
pub(super) fn replace(host: &Host, path: &str, text: &str) -> Result<(), FileError> {
    let (directory, _) = path.rsplit_once('/').unwrap_or_default();
    let place = host.directory(directory).and_then(|_| host.place(path));
    let write =
        |at: host::Place| durable::replace(&at.path, &unfinished(&at.path), text.as_bytes());
    place.and_then(write).map_err(FileError::when("write", &host.path(path)))
}

/// Removes a file, and what an interrupted [`replace`] left.
pub(super) fn remove(host: &Host, path: &str) -> Result<(), FileError> {
    let removed = match host.place(path) {
        Ok(at) => durable::remove(&unfinished(&at.path)).and_then(|_| durable::remove(&at.path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    removed.map(|_| ()).map_err(FileError::when("remove", &host.path(path)))
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension(UNFINISHED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    fn sysctl(key: &str, before: u64, then: u64) -> Step {
        Step::sysctl(key.to_owned(), before, then)
    }

    /// Fails when a second apply forgets what was before the first, or what the first set.
    #[test]
    fn what_was_before_the_first_change_is_what_was_before() {
        let mut record = Record::new(None);
        record.note(sysctl("a", 1, 2));
        record.note(sysctl("b", 5, 6));
        record.note(sysctl("a", 2, 3));
        record.note(sysctl("a", 3, 3));
        let twice = Step::Sysctl { key: "a".to_owned(), before: 1, then: 3, earlier: vec![2] };
        assert_eq!(record.steps, [twice, sysctl("b", 5, 6)]);
        // What somebody set in between is what was before.
        record.note(sysctl("b", 100, 200));
        let between =
            Step::Sysctl { key: "b".to_owned(), before: 100, then: 200, earlier: vec![6] };
        assert_eq!(record.steps[1], between);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_another_format_is_refused() {
        let fake = Fake::new("tune-record", &[]);
        assert_eq!(Record::load(&fake.host).unwrap(), None);
        let mut record = Record::new(None);
        record.note(sysctl("a", 1, 2));
        record.note(Step::file("/etc/x".to_owned(), "y\n".to_owned()));
        record.save(&fake.host).unwrap();
        assert_eq!(Record::load(&fake.host).unwrap(), Some(record));
        fake.write(RECORD, "{\"format\":2,\"steps\":[]}");
        assert!(Record::load(&fake.host).is_err());
    }

    /// Fails when the record of a copied machine has files removed that are not the copy's.
    #[test]
    fn a_record_that_leads_out_of_the_root_is_refused() {
        let fake = Fake::new("tune-record-climbs", &[]);
        let mut record = Record::new(None);
        record.note(Step::file("/etc/../../x".to_owned(), "y\n".to_owned()));
        record.save(&fake.host).unwrap();
        let error = std::error::Error::source(&Record::load(&fake.host).unwrap_err())
            .map(ToString::to_string);
        assert_eq!(error.as_deref(), Some("a path in it has `..`"));
    }
}
