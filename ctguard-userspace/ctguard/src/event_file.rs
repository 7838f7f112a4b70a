//! Events as lines of JSON in a file for each namespace, until a reboot.
//!
//! There are two files of bounded length: one that grows, and the one before it. Each begins with
//! `{"namespace":COOKIE}`, because a new namespace may have the number of one that is gone.
//!
//! The daemon and commands write at the same time. A third file is the lock of who may replace the first
//! one, and has what commands did to lists in this minute.

mod pace;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use pace::Pace;
use serde::{Deserialize, Serialize};

use crate::{
    events::{Event, What},
    files::FileError,
};
use ctguard_audit::host::{Host, numbers};
use ctguard_kernel::{namespace, run_directory};

/// A longer file replaces the one before it.
const LONGEST: u64 = 1 << 20;
/// A tick does not wait long for a command that was stopped while it held the lock.
const PATIENCE: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    /// `None` if the kernel does not tell.
    namespace: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    namespace: u64,
}

impl EventFile {
    /// Removes what a former namespace of the same number has left.
    pub(crate) fn of_this_namespace() -> io::Result<Self> {
        let path = run_directory::of_this_namespace("events.jsonl")?;
        let file = Self { path, namespace: namespace::cookie() };
        file.remove_foreign();
        Ok(file)
    }

    fn remove_foreign(&self) {
        for path in [&self.path, &self.former()] {
            let first = File::open(path).map(|file| BufReader::new(file.take(64)).lines().next());
            let Ok(Some(Ok(first))) = first else { continue };
            let header = serde_json::from_str::<Header>(&first).ok();
            if let (Some(header), Some(own)) = (header, self.namespace)
                && header.namespace != own
            {
                let _ = fs::remove_file(path);
            }
        }
    }

    pub(crate) fn add(&self, what: What) -> Result<(), FileError> {
        self.try_add(Some(what), false, SystemTime::now()).map_err(self.unwritten())
    }

    /// Adds a change of a list. Of many in a minute only the number is kept.
    pub(crate) fn add_of_list(&self, what: What) -> Result<(), FileError> {
        self.try_add(Some(what), true, SystemTime::now()).map_err(self.unwritten())
    }

    /// Adds how many changes of lists an earlier minute left out.
    pub(crate) fn settle(&self) -> Result<(), FileError> {
        self.try_settle(SystemTime::now()).map_err(self.unwritten())
    }

    fn unwritten(&self) -> impl FnOnce(io::Error) -> FileError {
        FileError::new("write", &self.path)
    }

    fn try_settle(&self, now: SystemTime) -> io::Result<()> {
        let text = match fs::read_to_string(self.path.with_extension("pace")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let mut pace: Pace = serde_json::from_str(&text).unwrap_or_default();
        if pace.take_left_out(since_1970(now)).is_none() {
            return Ok(());
        }
        self.try_add(None, false, now)
    }

    fn try_add(&self, what: Option<What>, is_of_list: bool, now: SystemTime) -> io::Result<()> {
        let event = |what| Event { time: written(now), what };
        let length = || fs::metadata(&self.path).map_or(0, |file| file.len());
        let Some(mut lock) = self.lock()? else {
            // Whoever has it may be about to replace the file, which lines outlive.
            if length() >= 2 * LONGEST {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            return self.append(&what.map(event).into_iter().collect::<Vec<_>>());
        };
        let mut text = String::new();
        lock.read_to_string(&mut text)?;
        let before: Pace = serde_json::from_str(&text).unwrap_or_default();
        let mut pace = before;
        let seconds = since_1970(now);
        let left_out = pace.take_left_out(seconds).map(|left_out| {
            let began = SystemTime::UNIX_EPOCH + Duration::from_secs(left_out.began);
            Event { time: written(began), what: left_out.what }
        });
        let what = what.filter(|_| !is_of_list || pace.admits(seconds));
        if pace != before {
            lock.set_len(0)?;
            lock.seek(SeekFrom::Start(0))?;
            serde_json::to_writer(&mut lock, &pace)?;
        }
        if length() >= LONGEST {
            fs::rename(&self.path, self.former())?;
        }
        self.append(&left_out.into_iter().chain(what.map(event)).collect::<Vec<_>>())
    }

    /// `None` if somebody else keeps it.
    fn lock(&self) -> io::Result<Option<File>> {
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = open.open(self.path.with_extension("pace"))?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if waited >= PATIENCE => return Ok(None),
                Err(TryLockError::WouldBlock) => {}
            }
            thread::sleep(POLL);
            waited += POLL;
        }
    }

    fn append(&self, events: &[Event]) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        let mut lines = Vec::new();
        if let Some(namespace) =
            self.namespace.filter(|_| file.metadata().is_ok_and(|it| it.len() == 0))
        {
            serde_json::to_writer(&mut lines, &Header { namespace })?;
            lines.push(b'\n');
        }
        for event in events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)
    }

    /// The newest `most` events, the oldest of them first, and where to read on. Ignores lines that
    /// another version wrote or that were cut short.
    pub(crate) fn last(&self, most: usize) -> Result<(Vec<Event>, Position), FileError> {
        let mut text = String::new();
        read(&self.former(), 0, &mut text)?;
        let at = read(&self.path, 0, &mut text)?;
        let events: Vec<Event> = events(&text).collect();
        let first = events.len().saturating_sub(most);
        Ok((events.into_iter().skip(first).collect(), at))
    }

    /// The events after `at`, which is moved on.
    pub(crate) fn since(&self, at: &mut Position) -> Result<Vec<Event>, FileError> {
        let mut text = String::new();
        let now = Position::of(&self.path);
        *at = if now.file == at.file {
            read(&self.path, at.bytes, &mut text)?
        } else {
            if Position::of(&self.former()).file == at.file {
                read(&self.former(), at.bytes, &mut text)?;
            }
            read(&self.path, 0, &mut text)?
        };
        Ok(events(&text).collect())
    }

    fn former(&self) -> PathBuf {
        self.path.with_extension("former.jsonl")
    }
}

fn since_1970(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn written(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Removes the files that network namespaces have left which are gone.
pub(crate) fn forget_gone_namespaces() -> io::Result<()> {
    let (own, Some(alive)) = (namespace::number()?, numbers(&Host::at("/"))) else { return Ok(()) };
    for file in fs::read_dir(run_directory::PATH)? {
        let file = file?;
        let name = file.file_name();
        let number = name.to_str().and_then(|name| {
            let (number, name) = name.split_once('.')?;
            let is_ours = ["events.", "holders.", "feeds.", "interfaces."]
                .iter()
                .any(|own| name.starts_with(own));
            number.parse::<u64>().ok().filter(|_| is_ours)
        });
        if number.is_some_and(|number| number != own && !alive.contains(&number)) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Inode; none if there is no file.
    file: Option<u64>,
    bytes: u64,
}

impl Position {
    fn of(path: &Path) -> Self {
        Self { file: fs::metadata(path).ok().map(|file| file.ino()), bytes: 0 }
    }
}

/// Adds the whole lines from `from` on to `text`.
fn read(path: &Path, from: u64, text: &mut String) -> Result<Position, FileError> {
    try_read(path, from, text).map_err(FileError::new("read", path))
}

fn try_read(path: &Path, from: u64, text: &mut String) -> io::Result<Position> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Position::default()),
        Err(error) => return Err(error),
    };
    let inode = file.metadata()?.ino();
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(2 * LONGEST).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    text.push_str(&String::from_utf8_lossy(&bytes[..whole]));
    Ok(Position { file: Some(inode), bytes: from.saturating_add(whole as u64) })
}

fn events(text: &str) -> impl Iterator<Item = Event> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::events::Relief;

    fn file(directory: &tempfile::TempDir) -> EventFile {
        EventFile { path: directory.path().join("events.jsonl"), namespace: Some(7) }
    }

    fn reclaimed(entries_deleted: u64) -> What {
        What::Reclaimed(Relief { entries_deleted, by_class: BTreeMap::new(), sources: Vec::new() })
    }

    fn whats(events: Vec<Event>) -> Vec<What> {
        events.into_iter().map(|event| event.what).collect()
    }

    #[test]
    fn the_newest_events_come_last_and_no_more_than_were_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        assert_eq!(file.last(5).unwrap().0, []);
        for number in 0..10 {
            file.add(reclaimed(number)).unwrap();
        }
        assert_eq!(whats(file.last(2).unwrap().0), [reclaimed(8), reclaimed(9)]);
    }

    #[test]
    fn a_line_cut_short_or_of_another_version_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        fs::write(&file.path, "{\"time\":\"2026\",\"event\":\"unheard_of\"}\nnonsense\n").unwrap();
        file.add(What::Stopped).unwrap();
        let (events, mut at) = file.last(5).unwrap();
        assert_eq!(whats(events), [What::Stopped]);
        let write_more = |text: &str| {
            let mut open = OpenOptions::new().append(true).open(&file.path).unwrap();
            open.write_all(text.as_bytes()).unwrap();
        };
        let half = "{\"time\":\"2026\",\"event\":";
        write_more(half);
        assert_eq!(file.since(&mut at).unwrap(), []);
        let rest = "\"stopped\"}\n";
        write_more(rest);
        assert_eq!(whats(file.since(&mut at).unwrap()), [What::Stopped], "not lost by a half");
    }

    /// Fails when the files grow without end, or when a reader misses events as they change.
    #[test]
    fn a_long_file_gives_way_to_a_new_one_under_the_eyes_of_a_reader() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let (_, mut at) = file.last(0).unwrap();
        let mut seen = 0;
        let long = What::Started { interfaces: vec!["x".repeat(1000)] };
        for _ in 0..3000 {
            file.add(long.clone()).unwrap();
            seen += file.since(&mut at).unwrap().len();
        }
        assert_eq!(seen, 3000);
        for path in [&file.path, &file.former()] {
            assert!(fs::metadata(path).unwrap().len() <= LONGEST + 2000, "{}", path.display());
        }
    }

    /// Fails when two writers replace the file at once, which loses up to a whole file.
    #[test]
    fn writers_at_the_same_time_lose_no_event() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let long = What::Started { interfaces: vec!["x".repeat(1000)] };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..400 {
                        file.add(long.clone()).unwrap();
                    }
                });
            }
        });
        assert_eq!(file.last(9999).unwrap().0.len(), 1600);
        assert!(fs::metadata(file.former()).unwrap().len() >= LONGEST);
    }

    #[test]
    fn who_keeps_the_lock_keeps_nobody_from_writing() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let _lock = file.lock().unwrap().unwrap();
        file.add(What::Stopped).unwrap();
        assert_eq!(whats(file.last(5).unwrap().0), [What::Stopped]);
    }

    fn denied(host: u64) -> What {
        What::Changed { changes: vec![format!("deny + {host:x}::/64")] }
    }

    #[test]
    fn what_a_script_changes_does_not_push_out_what_the_daemon_did() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        file.add(reclaimed(1)).unwrap();
        for host in 0..20_000 {
            file.add_of_list(denied(host)).unwrap();
        }
        let events = whats(file.last(9999).unwrap().0);
        assert!(events[0] == reclaimed(1) && events.len() < 500, "{}", events.len());
    }

    /// Fails when `ctguard enforce` leaves no event after a script has denied many.
    #[test]
    fn a_script_that_changes_lists_hides_no_change_of_a_setting() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for host in 0..100 {
            file.try_add(Some(denied(host)), true, at).unwrap();
        }
        let enforced = What::Changed { changes: vec!["dry-run = off".to_owned()] };
        file.try_add(Some(enforced.clone()), false, at).unwrap();
        let events = whats(file.last(9999).unwrap().0);
        assert_eq!((events.len(), events.last()), (31, Some(&enforced)));
    }

    /// Fails when a reader never learns of changes that were left out, or believes that they were of
    /// another minute.
    #[test]
    fn what_a_minute_left_out_is_told_once_when_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        file.try_settle(at(900)).unwrap();
        for host in 0..100 {
            file.try_add(Some(denied(host)), true, at(1000)).unwrap();
        }
        for seconds in [1059, 1060, 9000] {
            file.try_settle(at(seconds)).unwrap();
        }
        let (events, _) = file.last(9999).unwrap();
        assert_eq!(events.len(), 31);
        assert_eq!(events[30].time, "1970-01-01T00:16:40.000Z");
        let text = "70 more changes of lists in the minute from then on".to_owned();
        assert_eq!(events[30].what, What::Changed { changes: vec![text] });
    }

    #[test]
    fn a_new_namespace_does_not_see_the_events_of_one_that_had_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory);
        file.add(What::Stopped).unwrap();
        file.remove_foreign();
        assert_eq!(file.last(5).unwrap().0.len(), 1);
        let next = EventFile { namespace: Some(8), ..file };
        next.remove_foreign();
        assert_eq!(next.last(5).unwrap().0, []);
    }

    #[test]
    fn damaged_lines_hide_no_others() {
        let stopped = Event { time: "2026-11-30T02:03:04.5Z".to_owned(), what: What::Stopped };
        let line = serde_json::to_string(&stopped).unwrap();
        ctguard_damage::survives!(&[line.as_bytes()], |bytes: &[u8]| {
            let text = format!("{}\n{line}\n", String::from_utf8_lossy(bytes));
            assert_eq!(events(&text).last().as_ref(), Some(&stopped));
        });
    }
}
