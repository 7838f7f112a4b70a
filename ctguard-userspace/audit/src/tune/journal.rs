//! What watches saw since the last change: `/var/lib/ctguard/tune-watch.jsonl`, one line of JSON for
//! each interval, kept until the change is reverted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use super::{
    error::{TuneError, lock},
    record::{FileError, remove},
    watch::Interval,
};
use crate::host::Host;

pub const JOURNAL: &str = "/var/lib/ctguard/tune-watch.jsonl";

#[derive(Debug)]
pub struct Journal {
    file: File,
    intervals: Vec<Interval>,
}

impl Journal {
    /// Starts with what earlier watches of the same change saw. The last line may be incomplete.
    pub fn open(host: &Host) -> Result<Self, TuneError> {
        let path = &host.path(JOURNAL);
        let failed = |action| FileError::when(action, path);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).custom_flags(libc::O_NOFOLLOW);
        let open = host.place(JOURNAL).and_then(|place| options.open(place.path));
        let mut file = open.map_err(failed("open"))?;
        lock(&file, path, "ctguard tune --watch")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n").map_err(failed("write"))?;
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        let intervals = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok(Self { file, intervals })
    }

    /// Adds an interval, which is kept in memory even if it cannot be written.
    pub fn add(&mut self, interval: Interval) -> io::Result<()> {
        let line = serde_json::to_string(&interval)? + "\n";
        self.intervals.push(interval);
        self.file.write_all(line.as_bytes())
    }

    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }
}

pub(super) fn forget(host: &Host) -> Result<(), FileError> {
    remove(host, JOURNAL)
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
        assert!(matches!(Journal::open(&fake.host), Err(TuneError::Busy(_))));
        drop(first);
        assert!(Journal::open(&fake.host).is_ok());
        forget(&fake.host).unwrap();
        assert!(!fake.host.is_there(JOURNAL));
    }
}
