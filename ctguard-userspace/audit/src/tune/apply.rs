//! Carries a plan out.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use thiserror::Error;

use super::{
    files::{self, OwnFile},
    journal,
    place::{Place, Relation},
    plan::Change,
    reading::Before,
    record::{FileError, RECORD, Record, Setting, Step, replace},
};
use crate::host::{BUCKETS, Host, Unread, setting_path};

/// The kernel rounds the hash up to whole pages of pointers (`nf_ct_alloc_hashtable`).
const BUCKETS_IN_PAGE: u64 = 512;

/// Why a plan is not, or only half, carried out. What was done can be taken back.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("cannot set {key} to {value}; in a container, run it on the host")]
    Set { key: String, value: u64, source: io::Error },
    #[error("{0} is there, and not as ctguard writes it: move it away, or do without --persist")]
    Foreign(String),
    #[error("another `ctguard tune` is at work")]
    Busy,
    #[error(
        "what was applied is of another network namespace, net:[{0}]: run it there, as with nsenter \
         --net"
    )]
    Elsewhere(u64),
}

/// Sets what changes, in the order of the plan, then writes the files; whether there was something
/// to do.
pub fn apply(host: &Host, changes: &[Change], files: &[OwnFile]) -> Result<bool, ApplyError> {
    let changing = || changes.iter().filter(|change| change.changes());
    let new_files = files_to_write(host, files)?;
    if changing().next().is_none() && new_files.is_empty() {
        return Ok(false);
    }
    let _alone = alone(host)?;
    let mut record = Record::load(host)?.unwrap_or_else(|| Record::new(Place::of(host)));
    refuse_elsewhere(&record, host)?;
    if record.relation(host) == Relation::Gone {
        // Its settings went with it; files did not.
        record.steps.retain(|step| !matches!(step, Step::Sysctl { .. }));
        record.place = Place::of(host);
    }
    let is_lost = |file: &OwnFile| host.is_there(file.path) && !record.has_file(file.path);
    record.forgot |= new_files.iter().any(|file| is_lost(file));
    if changing().next().is_some() {
        record.before = Before::take(host)?;
        let set = |change: &Change| Setting { key: change.key.clone(), then: change.then };
        record.last = changing().map(set).collect();
        journal::forget(host)?;
    }
    for change in changing() {
        record.note(Step::sysctl(change.key.clone(), change.now, change.then));
    }
    for file in &new_files {
        for path in missing_directories(host, file.path) {
            record.note(Step::Directory { path });
        }
        record.note(Step::file(file.path.to_owned(), file.text.clone()));
    }
    record.save(host)?;

    for change in changing() {
        set(host, &change.key, change.then)?;
    }
    for file in new_files {
        replace(&host.path(file.path), &file.text)?;
    }
    Ok(true)
}

/// Those that are not there as they shall be; none may be another's.
fn files_to_write<'f>(host: &Host, files: &'f [OwnFile]) -> Result<Vec<&'f OwnFile>, ApplyError> {
    let record = Record::load(host)?;
    let known =
        |path: &str, text: &str| record.as_ref().is_some_and(|record| record.wrote(path, text));
    let is_noted = |path| record.as_ref().is_some_and(|record| record.has_file(path));
    let mut missing = Vec::new();
    for file in files {
        match host.text(file.path)? {
            Some(text) if known(file.path, &text) => {
                missing.extend((text != file.text).then_some(file));
            }
            // Where the record does not outlast a boot, the file says whose it is.
            Some(text) if is_noted(file.path) || !files::is_own(file.path, &text) => {
                return Err(ApplyError::Foreign(file.path.to_owned()));
            }
            _ => missing.push(file),
        }
    }
    Ok(missing)
}

/// Keeps others from applying and reverting until it is dropped.
pub(super) fn alone(host: &Host) -> Result<File, ApplyError> {
    let record = host.path(RECORD);
    let directory = record.parent().unwrap_or(Path::new("/"));
    let failed = |action| move |source| FileError { action, path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed("make"))?;
    let lock = File::open(directory).map_err(failed("open"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ApplyError::Busy),
        Err(TryLockError::Error(source)) => Err(failed("lock")(source).into()),
    }
}

/// One record is of one network namespace.
pub(super) fn refuse_elsewhere(record: &Record, host: &Host) -> Result<(), ApplyError> {
    match (record.relation(host), &record.place) {
        (Relation::Other, Some(place)) => Err(ApplyError::Elsewhere(place.namespace)),
        _ => Ok(()),
    }
}

pub(super) fn set(host: &Host, key: &str, value: u64) -> Result<(), ApplyError> {
    let path = host.path(&setting_path(host, key));
    let written = fs::write(path, format!("{value}\n"));
    written.map_err(|source| ApplyError::Set { key: key.to_owned(), value, source })
}

/// Whether a setting is what was written to it.
pub(super) fn is(key: &str, live: u64, written: u64) -> bool {
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
        tune::{files::SYSCTL, revert::revert},
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
    fn another_ones_file_stops_all_before_anything_is_set() {
        let fake = machine("tune-foreign");
        fake.write(SYSCTL, "mine\n");
        assert!(matches!(apply(&fake.host, &changes(), &[file()]), Err(ApplyError::Foreign(_))));
        assert_eq!(max(&fake), Some(7680));
        assert_eq!(revert(&fake.host).unwrap(), None);
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

    /// Fails when a record is made of nothing, which a watch would take for a change.
    #[test]
    fn what_changes_nothing_leaves_no_record() {
        let fake = machine("tune-nothing");
        let same = Change { now: 65_536, ..changes().remove(0) };
        assert!(!apply(&fake.host, &[same], &[]).unwrap());
        assert!(!fake.host.is_there(RECORD));
        assert!(apply(&fake.host, &changes(), &[]).unwrap());
    }

    #[test]
    fn only_one_is_at_work_at_a_time() {
        let fake = machine("tune-alone");
        let first = alone(&fake.host).unwrap();
        assert!(matches!(apply(&fake.host, &changes(), &[]), Err(ApplyError::Busy)));
        drop(first);
        assert!(apply(&fake.host, &changes(), &[]).is_ok());
    }

    /// Fails when a hash that the kernel rounded up is taken for another's.
    #[test]
    fn a_hash_that_was_rounded_up_is_still_ours() {
        assert!(is(BUCKETS, 1_000_448, 1_000_000));
        assert!(!is(BUCKETS, 1_001_472, 1_000_000) && !is(MAX, 1_000_448, 1_000_000));
    }
}
