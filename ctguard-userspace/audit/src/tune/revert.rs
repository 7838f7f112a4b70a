//! Reverts what was applied.

use std::fs;

use serde::Serialize;

use super::{
    apply::{alone, refuse_elsewhere, set},
    error::TuneError,
    files, journal,
    place::{Place, Relation},
    record::{RECORD, Record, Step, remove},
};
use crate::{
    doctor::with_margin,
    host::{BUCKETS, Host, MAX, TableNumbers, has_value, most_entries, setting_path},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reverted {
    Set {
        key: String,
        from: u64,
        to: u64,
    },
    // Not reverted: somebody else has changed it since, or it would do harm.
    Left {
        what: String,
        why: String,
        /// To be reverted by a later run.
        #[serde(skip)]
        waits: bool,
    },
    Removed {
        path: String,
    },
}

/// Reverts what is in the record, the last step first; none where there is nothing to revert.
pub fn revert(host: &Host) -> Result<Option<Vec<Reverted>>, TuneError> {
    if !host.is_there(RECORD) {
        return without_record(host);
    }
    let _alone = alone(host)?;
    let Some(record) = Record::load(host)? else { return Ok(None) };
    refuse_elsewhere(&record, host)?;
    let is_gone = record.relation(host) == Relation::Gone;
    let (mut done, mut waiting) = (Vec::new(), Vec::<Step>::new());
    let max_waits = |waiting: &[Step]| waiting.iter().any(|step| step.name() == MAX);
    for step in record.steps.iter().rev() {
        let undone = match step {
            Step::Sysctl { key, .. } if is_gone => {
                Some(left(key, "its network namespace no longer exists", false))
            }
            // A smaller hash for the same maximum makes chains on which the kernel drops new flows.
            Step::Sysctl { key, .. } if key == BUCKETS && max_waits(&waiting) => {
                Some(left(key, "it stays until the maximum can be reverted", true))
            }
            Step::Sysctl { key, before, then, earlier } => {
                put_back(host, key, *before, earlier.iter().chain([then]))?
            }
            Step::File { path, then, earlier } => {
                take_away(host, path, earlier.iter().chain([then]))?
            }
            // Others may have put something there.
            Step::Directory { path } => {
                let removed = host.place(path).and_then(|place| fs::remove_dir(place.path));
                removed.ok().map(|()| Reverted::Removed { path: path.clone() })
            }
        };
        if matches!(undone, Some(Reverted::Left { waits: true, .. })) {
            waiting.push(step.clone());
        }
        done.extend(undone);
    }
    done.extend(record.forgot.then(forgotten));
    // There is no change left to watch.
    journal::forget(host)?;
    if waiting.is_empty() {
        Record::remove(host)?;
    } else {
        waiting.reverse();
        Record { steps: waiting, before: None, last: Vec::new(), ..record }.save(host)?;
    }
    Ok(Some(done))
}

/// Where the record is lost at a boot, as with `/var` in memory, the files are not.
fn without_record(host: &Host) -> Result<Option<Vec<Reverted>>, TuneError> {
    if Place::of(host).is_some_and(|place| !place.is_first) {
        return Ok(None);
    }
    let mut done = Vec::new();
    for path in files::ALL {
        if host.text(path)?.is_some_and(|text| files::is_own(path, &text)) {
            remove(host, path)?;
            done.push(Reverted::Removed { path: path.to_owned() });
        }
    }
    if done.is_empty() {
        return Ok(None);
    }
    done.push(forgotten());
    Ok(Some(done))
}

fn forgotten() -> Reverted {
    let why = "their earlier values are unknown; the next boot restores the defaults";
    left("settings of the running kernel", why, false)
}

fn left(what: &str, why: impl Into<String>, waits: bool) -> Reverted {
    Reverted::Left { what: what.to_owned(), why: why.into(), waits }
}

fn put_back<'w>(
    host: &Host,
    key: &str,
    before: u64,
    mut written: impl Iterator<Item = &'w u64>,
) -> Result<Option<Reverted>, TuneError> {
    let Some(live) = host.number(&setting_path(host, key))? else {
        return Ok(Some(left(key, "conntrack is not loaded", false)));
    };
    if has_value(key, live, before) {
        return Ok(None);
    }
    if !written.any(|written| has_value(key, live, *written)) {
        return Ok(Some(left(key, format!("somebody else has set it to {live}"), false)));
    }
    if let Some(why) = harm(host, key, before)? {
        return Ok(Some(left(key, why, true)));
    }
    set(host, key, before)?;
    Ok(Some(Reverted::Set { key: key.to_owned(), from: live, to: before }))
}

/// Why a setting must not be reverted now.
fn harm(host: &Host, key: &str, before: u64) -> Result<Option<String>, TuneError> {
    if key != MAX || before == 0 {
        return Ok(None);
    }
    let own = TableNumbers::read(host)?.map_or(0, |table| table.count);
    let count = most_entries(host, own);
    Ok((with_margin(count) >= before).then(|| {
        format!(
            "a table holds {count} entries; with a maximum of {before} new flows would be dropped. \
             Try again later"
        )
    }))
}

fn take_away<'w>(
    host: &Host,
    path: &str,
    mut written: impl Iterator<Item = &'w String>,
) -> Result<Option<Reverted>, TuneError> {
    match host.text(path)? {
        Some(text) if !written.any(|written| *written == text) => {
            Ok(Some(left(path, "somebody has changed the file", false)))
        }
        found => {
            remove(host, path)?;
            Ok(found.map(|_| Reverted::Removed { path: path.to_owned() }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{
        host::{COUNT, HASHSIZE, sysctl_path, testing::Fake},
        tune::{
            apply::apply,
            files::{OwnFile, SYSCTL},
            plan::Change,
            record::RECORD,
        },
    };

    fn machine(test: &str) -> Fake {
        let fake = Fake::new(test, &[("/etc/hostname", "router\n")]);
        for (key, value) in [(COUNT, "100\n"), (MAX, "7680\n"), (BUCKETS, "7680\n")] {
            fake.write(&sysctl_path(key), value);
        }
        fake
    }

    fn changes(now: u64, then: u64) -> Vec<Change> {
        let change = |key: &str| Change { key: key.to_owned(), now, then, why: String::new() };
        vec![change(BUCKETS), change(MAX)]
    }

    fn file(text: &str) -> OwnFile {
        let text = format!("net.netfilter.nf_conntrack_{text}");
        OwnFile { path: SYSCTL, text: files::own(&text) }
    }

    fn max(fake: &Fake) -> Option<u64> {
        fake.host.number(&sysctl_path(MAX)).unwrap()
    }

    fn left(done: &[Reverted]) -> usize {
        done.iter().filter(|done| matches!(done, Reverted::Left { .. })).count()
    }

    #[test]
    fn what_was_applied_is_taken_back_with_every_file_and_directory() {
        let fake = machine("tune-revert");
        apply(&fake.host, &changes(7680, 65_536), &[file("x = 1\n")]).unwrap();
        assert_eq!(max(&fake), Some(65_536));
        assert!(fake.host.is_there(SYSCTL));
        let done = revert(&fake.host).unwrap().unwrap();
        assert_eq!(max(&fake), Some(7680));
        assert!(!fake.host.is_there("/etc/sysctl.d") && fake.host.is_there("/etc/hostname"));
        assert_eq!(done.len(), 4, "{done:?}");
        assert_eq!(revert(&fake.host).unwrap(), None);
    }

    /// Fails when what the first of two applications set is taken for somebody else's after the
    /// second was killed.
    #[test]
    fn a_second_application_that_did_nothing_leaves_the_first_to_be_taken_back() {
        let fake = machine("tune-second");
        apply(&fake.host, &changes(7680, 20_000), &[file("x = 1\n")]).unwrap();
        apply(&fake.host, &changes(20_000, 40_000), &[file("x = 2\n")]).unwrap();
        // As if it had been killed before it did anything.
        for key in [MAX, BUCKETS] {
            fake.write(&sysctl_path(key), "20000\n");
        }
        fake.write(SYSCTL, &file("x = 1\n").text);
        let done = revert(&fake.host).unwrap().unwrap();
        assert_eq!((left(&done), max(&fake)), (0, Some(7680)));
        assert!(!fake.host.is_there(SYSCTL));
    }

    #[test]
    fn what_somebody_changed_since_stays_theirs() {
        let fake = machine("tune-theirs");
        apply(&fake.host, &changes(7680, 65_536), &[file("x = 1\n")]).unwrap();
        fake.write(&sysctl_path(MAX), "100000\n");
        fake.write(SYSCTL, "y = 2\n");
        let done = revert(&fake.host).unwrap().unwrap();
        assert_eq!((left(&done), max(&fake)), (2, Some(100_000)));
        assert!(fake.host.is_there(SYSCTL));
    }

    /// Fails when taking back a larger table drops the new flows of everybody.
    #[test]
    fn a_maximum_is_not_put_back_below_what_the_table_holds_until_it_holds_less() {
        let fake = machine("tune-harm");
        apply(&fake.host, &changes(7680, 65_536), &[]).unwrap();
        fake.write(&sysctl_path(COUNT), "20000\n");
        let done = revert(&fake.host).unwrap().unwrap();
        assert_eq!((left(&done), max(&fake)), (2, Some(65_536)), "{done:?}");
        assert_eq!(fake.host.number(&sysctl_path(BUCKETS)).unwrap(), Some(65_536));
        fake.write(&sysctl_path(COUNT), "500\n");
        let done = revert(&fake.host).unwrap().unwrap();
        assert_eq!((left(&done), max(&fake)), (0, Some(7680)));
    }

    /// Fails where `/var` is in memory, on many a router: the record goes with a boot.
    #[test]
    fn files_whose_record_is_lost_are_tunes_all_the_same() {
        let fake = machine("tune-lost");
        apply(&fake.host, &changes(7680, 65_536), &[file("x = 1\n")]).unwrap();
        fs::remove_file(fake.host.path(RECORD)).unwrap();
        apply(&fake.host, &changes(65_536, 65_536), &[file("x = 2\n")]).unwrap();
        fs::remove_file(fake.host.path(RECORD)).unwrap();
        let done = revert(&fake.host).unwrap().unwrap();
        assert_eq!(left(&done), 1);
        assert!(!fake.host.is_there(SYSCTL));
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
        apply(&fake.host, &changes(7680, 65_536), &[]).unwrap();
        assert_eq!(hashsize(), Some(65_536));
        revert(&fake.host).unwrap();
        assert_eq!(hashsize(), Some(7680));
    }
}
