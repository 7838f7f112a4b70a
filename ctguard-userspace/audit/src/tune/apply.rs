//! Carries out a plan.

use std::{fs::File, path::Path};

use super::{
    error::{TuneError, lock},
    files::{self, OwnFile},
    journal,
    place::{Place, Relation},
    plan::Change,
    record::{FileError, RECORD, Record, Setting, Step, replace},
    watch::Before,
};
use crate::{
    doctor::longest_timeouts,
    host::{Host, Unread, setting_path, sysctl_path},
};
use ctguard_kernel::conntrack::lower_timeouts::{TimeoutLimits, lower_timeouts};

/// Sets what changes, in the order of the plan, then writes the files. False if nothing was to do.
pub fn apply(host: &Host, changes: &[Change], files: &[OwnFile]) -> Result<bool, TuneError> {
    let changing: Vec<_> = changes.iter().filter(|change| change.changes()).collect();
    let new_files = files_to_write(host, files)?;
    if changing.is_empty() && new_files.is_empty() {
        return Ok(false);
    }
    let _alone = alone(host)?;
    let mut record = Record::load(host)?.unwrap_or_else(|| Record::new(Place::of(host)));
    refuse_elsewhere(&record, host)?;
    if record.relation(host) == Relation::Gone {
        // Its settings are gone with it; files are not.
        record.steps.retain(|step| !matches!(step, Step::Sysctl { .. }));
        record.place = Place::of(host);
    }
    let is_lost = |file: &OwnFile| host.is_there(file.path) && !record.has_file(file.path);
    record.forgot |= new_files.iter().any(|file| is_lost(file));
    if !changing.is_empty() {
        record.before = Before::take(host)?;
        record.last.clear();
        journal::forget(host)?;
    }
    for Change { key, now, then, .. } in &changing {
        record.last.push(Setting { key: key.clone(), then: *then });
        record.note(Step::sysctl(key.clone(), *now, *then));
    }
    for file in &new_files {
        for path in missing_directories(host, file.path) {
            record.note(Step::Directory { path });
        }
        record.note(Step::file(file.path.to_owned(), file.text.clone()));
    }
    record.save(host)?;

    for change in changing {
        set(host, &change.key, change.then)?;
    }
    for file in new_files {
        replace(host, file.path, &file.text)?;
    }
    Ok(true)
}

/// The files that are missing or differ; fails if one is not tune's.
fn files_to_write<'f>(host: &Host, files: &'f [OwnFile]) -> Result<Vec<&'f OwnFile>, TuneError> {
    let record = Record::load(host)?.unwrap_or_else(|| Record::new(None));
    let mut missing = Vec::new();
    for file in files {
        let (path, found) = (file.path, host.text(file.path)?);
        let wrote = found.as_ref().is_some_and(|text| record.wrote(path, text));
        // Where the record is lost at a boot, the file says who wrote it.
        let is_own = |text: &String| !record.has_file(path) && files::is_own(path, text);
        if !wrote && !found.as_ref().is_none_or(is_own) {
            return Err(TuneError::Foreign(path.to_owned()));
        }
        if !wrote || found.as_ref() != Some(&file.text) {
            missing.push(file);
        }
    }
    Ok(missing)
}

/// Keeps other runs from applying and reverting until it is dropped.
pub(super) fn alone(host: &Host) -> Result<File, TuneError> {
    let (name, _) = RECORD.rsplit_once('/').unwrap_or_default();
    let path = host.path(name);
    let directory = host.directory(name).map_err(FileError::when("open", &path))?;
    lock(&directory, &path, "ctguard tune")?;
    Ok(directory)
}

pub(super) fn refuse_elsewhere(record: &Record, host: &Host) -> Result<(), TuneError> {
    match (record.relation(host), &record.place) {
        (Relation::Other, Some(place)) => Err(TuneError::OtherNamespace(place.namespace)),
        _ => Ok(()),
    }
}

pub(super) fn set(host: &Host, key: &str, value: u64) -> Result<(), TuneError> {
    let written = host.write(&setting_path(host, key), &format!("{value}\n"));
    written.map_err(|source| TuneError::Set { key: key.to_owned(), value, source })
}

/// Missing directories above a file, the outermost first.
fn missing_directories(host: &Host, path: &str) -> Vec<String> {
    let above = Path::new(path).ancestors().skip(1);
    let missing = above.take_while(|directory| !host.is_there(&directory.to_string_lossy()));
    let mut missing: Vec<_> = missing.map(|path| path.to_string_lossy().into_owned()).collect();
    missing.reverse();
    missing
}

/// Gives existing entries no more time than the timeouts allow now, and counts those that changed.
pub fn lower_existing_timeouts(host: &Host) -> Result<u64, TuneError> {
    if !host.is_this() {
        return Err(TuneError::Elsewhere);
    }
    let seconds = |name: &str| -> Result<u32, Unread> {
        let seconds = host.number(&sysctl_path(&format!("net.netfilter.nf_conntrack_{name}")))?;
        Ok(seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(u32::MAX))
    };
    // An entry does not tell whether a `ct timeout` policy applies to it.
    let policies = longest_timeouts(host)?;
    let limits = TimeoutLimits {
        tcp_established: seconds("tcp_timeout_established")?.max(policies.tcp_established),
        tcp_syn_sent: seconds("tcp_timeout_syn_sent")?.max(policies.tcp_syn_sent),
        udp: seconds("udp_timeout_stream")?.max(policies.udp),
        generic: seconds("generic_timeout")?,
    };
    Ok(lower_timeouts(limits)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::super::{files::SYSCTL, revert::revert};
    use super::*;
    use crate::host::{BUCKETS, MAX, sysctl_path, testing::Fake};

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

    /// Fails when the links of a copied machine make tune write outside of the copy.
    #[test]
    fn links_that_lead_out_of_the_root_are_not_followed() {
        let unfinished = format!("{SYSCTL}.ctguard-unfinished");
        let netfilter = "/proc/sys/net/netfilter";
        for link in ["/var", "/var/lib/ctguard", "/etc/sysctl.d", &unfinished, netfilter] {
            for up in ["", "../../../../../../../.."] {
                let fake = machine("tune-links");
                let outside = tempfile::tempdir().unwrap();
                fake.write("/etc/sysctl.d/other.conf", "");
                for name in ["nf_conntrack_max", "nf_conntrack_buckets"] {
                    fs::write(outside.path().join(name), "7680\n").unwrap();
                }
                let path = fake.host.path(link);
                let _ = fs::remove_dir_all(&path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let target = format!("{up}{}", outside.path().display());
                let target = if link == unfinished { target + "/made" } else { target };
                symlink(target, path).unwrap();
                assert!(apply(&fake.host, &changes(), &[file()]).is_err(), "{link}");
                let _ = revert(&fake.host);
                assert_eq!(fs::read_dir(&outside).unwrap().count(), 2, "{link}");
                let max = outside.path().join("nf_conntrack_max");
                assert_eq!(fs::read_to_string(max).unwrap(), "7680\n", "{link}");
            }
        }
    }

    #[test]
    fn another_ones_file_stops_all_before_anything_is_set() {
        let fake = machine("tune-foreign");
        fake.write(SYSCTL, "mine\n");
        assert!(matches!(apply(&fake.host, &changes(), &[file()]), Err(TuneError::Foreign(_))));
        assert_eq!(max(&fake), Some(7680));
        assert!(!fake.host.is_there(RECORD));
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
        assert!(matches!(apply(&fake.host, &changes(), &[]), Err(TuneError::Busy(_))));
        drop(first);
        assert!(apply(&fake.host, &changes(), &[]).is_ok());
    }
}
