//! What a watch saw: `/var/lib/ctguard/tune-watch.jsonl`, a line of JSON for each interval since the
//! last change, kept until it is taken back.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
};

use thiserror::Error;

use super::{
    record::{FileError, remove},
    watch::Interval,
};
use crate::host::Host;

pub const JOURNAL: &str = "/var/lib/ctguard/tune-watch.jsonl";

/// Why nothing can be watched.
#[derive(Debug, Error)]
pub enum JournalError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("another `ctguard tune --watch` is at work")]
    Busy,
}

/// One watcher's; no other can have it meanwhile.
#[derive(Debug)]
pub struct Journal {
    file: File,
    intervals: Vec<Interval>,
}

impl Journal {
    /// With what earlier watches of the same change saw. A boot or a kill may have cut a line short.
    pub fn open(host: &Host) -> Result<Self, JournalError> {
        let path = host.path(JOURNAL);
        let failed = |action| {
            let path = path.clone();
            move |source| FileError { action, path, source }
        };
        let open = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = open.map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source).into()),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n").map_err(failed("write"))?;
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        let intervals = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok(Self { file, intervals })
    }

    /// Adds an interval. It stays in memory where it cannot be written.
    pub fn add(&mut self, interval: Interval) -> io::Result<()> {
        let line = serde_json::to_string(&interval)? + "\n";
        self.intervals.push(interval);
        self.file.write_all(line.as_bytes())
    }

    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }
}

/// Forgets it.
pub(super) fn forget(host: &Host) -> Result<(), FileError> {
    remove(&host.path(JOURNAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    fn interval(count: u64) -> Interval {
        Interval {
            at: "2026-01-01T00:00:00Z".to_owned(),
            seconds: 1.5,
            count,
            peak: 20,
            max: 100,
            dropped: Some(1),
            early_dropped: None,
            refused: Some(3),
        }
    }

    /// Fails when a watch that a boot cut short forgets what it had seen, or spoils what follows.
    #[test]
    fn a_journal_is_read_as_it_was_written_but_for_a_line_cut_short() {
        let fake = Fake::new("tune-journal", &[]);
        let line = serde_json::to_string(&interval(1)).unwrap();
        fake.write(JOURNAL, &format!("{line}\n{{\"at\":\"2026"));
        let mut journal = Journal::open(&fake.host).unwrap();
        assert_eq!(journal.intervals(), [interval(1)]);
        journal.add(interval(2)).unwrap();
        drop(journal);
        let journal = Journal::open(&fake.host).unwrap();
        assert_eq!(journal.intervals(), [interval(1), interval(2)]);
    }

    /// Fails when two watches write the same losses twice.
    #[test]
    fn one_watches_at_a_time() {
        let fake = Fake::new("tune-journal-busy", &[("/var/lib/ctguard/tune.json", "{}")]);
        let first = Journal::open(&fake.host).unwrap();
        assert!(matches!(Journal::open(&fake.host), Err(JournalError::Busy)));
        drop(first);
        assert!(Journal::open(&fake.host).is_ok());
        forget(&fake.host).unwrap();
        assert!(!fake.host.is_there(JOURNAL));
    }
}
