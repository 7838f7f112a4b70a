//! The record of what was watched: `/var/lib/ctguard/tune-watch.jsonl`, a line of JSON for each
//! interval, kept until what was applied is taken back.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
};

use super::{
    record::{FileError, remove},
    watch::Interval,
};
use crate::host::Host;

pub(crate) const JOURNAL: &str = "/var/lib/ctguard/tune-watch.jsonl";

/// Adds a line.
pub(crate) fn append(host: &Host, interval: &Interval) -> Result<(), FileError> {
    let path = host.path(JOURNAL);
    let write = || -> io::Result<()> {
        let line = serde_json::to_string(interval)? + "\n";
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
        file.write_all(line.as_bytes())
    };
    write().map_err(|source| FileError { action: "write", path: path.clone(), source })
}

/// All lines that are whole; a boot or a kill may have cut one short.
pub(crate) fn read(host: &Host) -> Result<Vec<Interval>, FileError> {
    let path = host.path(JOURNAL);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(FileError { action: "read", path, source }),
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Forgets it.
pub(super) fn forget(host: &Host) -> Result<(), FileError> {
    remove(&host.path(JOURNAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    /// Fails when a watch that a boot cut short forgets what it had seen.
    #[test]
    fn a_journal_is_read_as_it_was_written_but_for_a_line_cut_short() {
        let fake = Fake::new("tune-journal", &[]);
        assert_eq!(read(&fake.host).unwrap(), []);
        let interval = Interval {
            at: "2026-01-01T00:00:00Z".to_owned(),
            seconds: 1.5,
            count: 10,
            peak: 20,
            max: 100,
            dropped: 1,
            early_dropped: 2,
            refused: Some(3),
        };
        let line = serde_json::to_string(&interval).unwrap();
        fake.write(JOURNAL, &format!("{line}\n{{\"at\":\"2026"));
        assert_eq!(read(&fake.host).unwrap(), std::slice::from_ref(&interval));
        fake.write(JOURNAL, "");
        append(&fake.host, &interval).unwrap();
        append(&fake.host, &interval).unwrap();
        assert_eq!(read(&fake.host).unwrap(), [interval.clone(), interval]);
        forget(&fake.host).unwrap();
        assert!(!fake.host.is_there(JOURNAL));
    }
}
