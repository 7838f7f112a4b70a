//! Carries a plan out, and takes it back.

use std::{fs, io, path::Path};

use thiserror::Error;

use super::{
    files::OwnFile,
    journal,
    plan::Change,
    reading::Before,
    record::{FileError, Record, Step, remove, replace},
};
use crate::host::{BUCKETS, Host, Unread, setting_path};

/// The kernel rounds the hash up to whole pages of pointers (`nf_ct_alloc_hashtable`).
const BUCKETS_IN_PAGE: u64 = 512;

/// Why a plan is not, or only half, carried out. What was done can be taken back.
#[derive(Debug, Error)]
pub(crate) enum ApplyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("cannot set {key} to {value}; in a container, run it on the host")]
    Set { key: String, value: u64, source: io::Error },
    #[error("{0} is there, and not of ctguard's: move it away, or do without --persist")]
    Foreign(String),
}

/// What became of one step that was to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reverted {
    Set {
        key: String,
        from: u64,
        to: u64,
    },
    /// Somebody else set it since: theirs stays.
    Left {
        what: String,
        why: String,
    },
    Removed(String),
}

/// Sets what changes, in the order of the plan, then writes the files.
pub(crate) fn apply(host: &Host, changes: &[Change], files: &[OwnFile]) -> Result<(), ApplyError> {
    let mut record = match Record::load(host)? {
        Some(record) => record,
        None => Record::new(Before::take(host)?),
    };
    for file in files {
        if host.is_there(file.path) && !record.has_file(file.path) {
            return Err(ApplyError::Foreign(file.path.to_owned()));
        }
    }
    for change in changes.iter().filter(|change| change.changes()) {
        let (key, before, then) = (change.key.clone(), change.now, change.then);
        record.note(Step::Sysctl { key, before, then });
    }
    for file in files {
        for path in missing_directories(host, file.path) {
            record.note(Step::Directory { path });
        }
        record.note(Step::File { path: file.path.to_owned(), then: file.text.clone() });
    }
    record.save(host)?;

    for change in changes.iter().filter(|change| change.changes()) {
        set(host, &change.key, change.then)?;
    }
    for file in files {
        replace(&host.path(file.path), &file.text)?;
    }
    Ok(())
}

/// Takes back what the record tells, the last first; none where there is none.
pub(crate) fn revert(host: &Host) -> Result<Option<Vec<Reverted>>, ApplyError> {
    let Some(record) = Record::load(host)? else { return Ok(None) };
    let mut done = Vec::new();
    for step in record.steps.iter().rev() {
        match step {
            Step::Sysctl { key, before, then } => {
                done.extend(put_back(host, key, *before, *then)?);
            }
            Step::File { path, then } => done.extend(take_away(host, path, then)?),
            Step::Directory { path } => {
                // Others may have put something there.
                if fs::remove_dir(host.path(path)).is_ok() {
                    done.push(Reverted::Removed(path.clone()));
                }
            }
        }
    }
    journal::forget(host)?;
    Record::remove(host)?;
    Ok(Some(done))
}

fn put_back(
    host: &Host,
    key: &str,
    before: u64,
    then: u64,
) -> Result<Option<Reverted>, ApplyError> {
    let Some(live) = host.number(&setting_path(host, key))? else {
        let why = "conntrack is not loaded".to_owned();
        return Ok(Some(Reverted::Left { what: key.to_owned(), why }));
    };
    if is(key, live, before) {
        return Ok(None);
    }
    if !is(key, live, then) {
        let why = format!("it is {live}, which somebody else has set");
        return Ok(Some(Reverted::Left { what: key.to_owned(), why }));
    }
    set(host, key, before)?;
    Ok(Some(Reverted::Set { key: key.to_owned(), from: live, to: before }))
}

fn take_away(host: &Host, path: &str, then: &str) -> Result<Option<Reverted>, ApplyError> {
    match host.text(path)? {
        Some(text) if text != then => {
            let why = "somebody has changed it".to_owned();
            Ok(Some(Reverted::Left { what: path.to_owned(), why }))
        }
        found => {
            remove(&host.path(path))?;
            Ok(found.map(|_| Reverted::Removed(path.to_owned())))
        }
    }
}

fn set(host: &Host, key: &str, value: u64) -> Result<(), ApplyError> {
    let path = host.path(&setting_path(host, key));
    let written = fs::write(path, format!("{value}\n"));
    written.map_err(|source| ApplyError::Set { key: key.to_owned(), value, source })
}

/// Whether a setting is what was written to it.
fn is(key: &str, live: u64, written: u64) -> bool {
    live == written || key == BUCKETS && live == written.next_multiple_of(BUCKETS_IN_PAGE)
}

/// Directories on the way to a file that are not there, the outermost first.
fn missing_directories(host: &Host, path: &str) -> Vec<String> {
    let above = Path::new(path).ancestors().skip(1);
    let missing = above.take_while(|directory| !host.path(&directory.to_string_lossy()).exists());
    let mut missing: Vec<_> = missing.map(|path| path.to_string_lossy().into_owned()).collect();
    missing.reverse();
    missing
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{
        host::{HASHSIZE, MAX, sysctl_path, testing::Fake},
        tune::files::SYSCTL,
    };

    fn machine(test: &str) -> Fake {
        let fake = Fake::new(test, &[("/etc/hostname", "router\n")]);
        fake.write(&sysctl_path(MAX), "7680\n");
        fake.write(&sysctl_path(BUCKETS), "7680\n");
        fake
    }

    fn changes() -> Vec<Change> {
        let change =
            |key: &str| Change { key: key.to_owned(), now: 7680, then: 65_536, why: String::new() };
        vec![change(BUCKETS), change(MAX)]
    }

    fn file() -> OwnFile {
        OwnFile { path: SYSCTL, text: "x = 1\n".to_owned() }
    }

    fn max(fake: &Fake) -> Option<u64> {
        fake.host.number(&sysctl_path(MAX)).unwrap()
    }

    #[test]
    fn what_was_applied_is_taken_back_with_every_file_and_directory() {
        let fake = machine("tune-apply");
        apply(&fake.host, &changes(), &[file()]).unwrap();
        assert_eq!(max(&fake), Some(65_536));
        assert!(fake.host.is_there(SYSCTL));
        let done = revert(&fake.host).unwrap().unwrap();
        assert_eq!(max(&fake), Some(7680));
        assert!(!fake.host.is_there("/etc/sysctl.d") && fake.host.is_there("/etc/hostname"));
        assert_eq!(done.len(), 4, "{done:?}");
        assert_eq!(revert(&fake.host).unwrap(), None);
    }

    #[test]
    fn another_ones_file_stops_all_before_anything_is_set() {
        let fake = machine("tune-foreign");
        fake.write(SYSCTL, "mine\n");
        assert!(matches!(apply(&fake.host, &changes(), &[file()]), Err(ApplyError::Foreign(_))));
        assert_eq!(max(&fake), Some(7680));
        assert_eq!(revert(&fake.host).unwrap(), None);
    }

    #[test]
    fn what_somebody_changed_since_stays_theirs() {
        let fake = machine("tune-theirs");
        apply(&fake.host, &changes(), &[file()]).unwrap();
        fake.write(&sysctl_path(MAX), "100000\n");
        fake.write(SYSCTL, "x = 2\n");
        let done = revert(&fake.host).unwrap().unwrap();
        let left = done.iter().filter(|done| matches!(done, Reverted::Left { .. })).count();
        assert_eq!((left, max(&fake)), (2, Some(100_000)));
        assert!(fake.host.is_there(SYSCTL));
    }

    /// Fails on kernels before 4.7, whose sysctl only shows the hash.
    #[test]
    fn a_hash_that_no_sysctl_sets_is_set_by_the_modules_parameter() {
        let fake = machine("tune-hashsize");
        let shown = fake.host.path(&sysctl_path(BUCKETS));
        fs::set_permissions(shown, fs::Permissions::from_mode(0o444)).unwrap();
        fake.write(HASHSIZE, "7680\n");
        let hashsize = || fake.host.number(HASHSIZE).unwrap();
        apply(&fake.host, &changes(), &[]).unwrap();
        assert_eq!(hashsize(), Some(65_536));
        revert(&fake.host).unwrap();
        assert_eq!(hashsize(), Some(7680));
    }

    /// Fails when a hash that the kernel rounded up is taken for another's.
    #[test]
    fn a_hash_that_was_rounded_up_is_still_ours() {
        assert!(is(BUCKETS, 1_000_448, 1_000_000));
        assert!(!is(BUCKETS, 1_001_472, 1_000_000) && !is(MAX, 1_000_448, 1_000_000));
    }
}
