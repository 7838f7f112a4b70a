//! Lists in files: each is read whole or not at all, and what a bad one said before stays.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use ipnet::IpNet;
use log::debug;
use rustix::fs::OFlags;
use thiserror::Error;

use super::text::{self, LineError};

/// A million IPv6 prefixes with remarks.
const LONGEST: u64 = 1 << 27;

/// A file is still being written that changed later than so long ago.
const SETTLED: Duration = Duration::from_millis(100);

/// The others are not kept waiting longer for a file that is being written.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub(super) enum FileFault {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}, {source}", path.display())]
    Line { path: PathBuf, source: LineError },
    #[error("{}: it is being written again and again, so it is not read", path.display())]
    Restless { path: PathBuf },
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Signature {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    signature: Option<Signature>,
    /// Of the last content that was good.
    prefixes: Vec<IpNet>,
    fault: Option<String>,
}

/// The files of a feed as they were read last.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    is_directory: bool,
    known: BTreeMap<PathBuf, Known>,
    fault: Option<String>,
    /// Found by a look that has not been told, because it met a file that is being written.
    has_changed: bool,
    /// Since when each look has met such a file.
    unsettled: Option<Instant>,
    patience: Duration,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    /// A file is being written.
    Unsettled,
    Changed,
}

impl Files {
    pub(super) fn new(path: &Path, is_directory: bool) -> Self {
        Self {
            path: path.to_owned(),
            is_directory,
            known: BTreeMap::new(),
            fault: None,
            has_changed: false,
            unsettled: None,
            patience: PATIENCE,
        }
    }

    /// Reads what has changed.
    pub(super) fn look(&mut self) -> Look {
        let paths = match self.paths() {
            Ok(paths) => paths,
            Err(source) => {
                let fault = FileFault::Read { path: self.path.clone(), source }.to_string();
                let is_news = self.fault.as_ref() != Some(&fault);
                self.fault = Some(fault);
                return if is_news { Look::Changed } else { Look::Same };
            }
        };
        self.has_changed |= self.fault.take().is_some();
        let before = self.known.len();
        self.known.retain(|path, _| paths.contains(path));
        self.has_changed |= self.known.len() != before;
        let mut unsettled = Vec::new();
        for path in paths {
            match self.known.entry(path.clone()).or_default().look(&path) {
                Look::Same => {}
                Look::Changed => self.has_changed = true,
                Look::Unsettled => unsettled.push(path),
            }
        }
        if unsettled.is_empty() {
            self.unsettled = None;
        } else if self.unsettled.get_or_insert_with(Instant::now).elapsed() < self.patience {
            return Look::Unsettled;
        }
        let is_settled = unsettled.is_empty();
        for path in unsettled {
            let known = self.known.entry(path.clone()).or_default();
            self.has_changed |= known.fail(&FileFault::Restless { path }) == Look::Changed;
        }
        match (std::mem::take(&mut self.has_changed), is_settled) {
            (true, _) => Look::Changed,
            (false, true) => Look::Same,
            (false, false) => Look::Unsettled,
        }
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        if !self.is_directory {
            return Ok(vec![self.path.clone()]);
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if !name.starts_with(b".") && !name.ends_with(b"~") && is_listed(&entry.path()) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The last good content of all files.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.known.values().flat_map(|known| known.prefixes.iter().copied())
    }

    pub(super) fn fault(&self) -> Option<&str> {
        let of_files = || self.known.values().find_map(|known| known.fault.as_deref());
        self.fault.as_deref().or_else(of_files)
    }

    /// Whether any content has been good.
    pub(super) fn has_content(&self) -> bool {
        self.is_directory && self.fault.is_none()
            || self.known.values().any(|known| known.signature.is_some() && known.fault.is_none())
            || self.known.values().any(|known| !known.prefixes.is_empty())
    }
}

/// Links, such as those of Kubernetes, count as what they lead to. One that leads nowhere, or a file that
/// cannot be asked about, was not removed: reading it will say what is wrong.
fn is_listed(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(found) => found.is_file(),
        Err(_) => fs::symlink_metadata(path).is_ok(),
    }
}

impl Known {
    fn look(&mut self, path: &Path) -> Look {
        self.read(path).unwrap_or_else(|fault| self.fail(&fault))
    }

    fn fail(&mut self, fault: &FileFault) -> Look {
        let fault = fault.to_string();
        let is_news = self.fault.as_ref() != Some(&fault);
        self.fault = Some(fault);
        if is_news { Look::Changed } else { Look::Same }
    }

    fn read(&mut self, path: &Path) -> Result<Look, FileFault> {
        let failed = |source| FileFault::Read { path: path.to_owned(), source };
        // Whoever opens a FIFO waits.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .inspect_err(|_| self.signature = None)
            .map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() {
            return Err(failed(io::Error::other("it is not a file")));
        }
        let signature = Signature::from(&facts);
        if self.signature == Some(signature) {
            return Ok(Look::Same);
        }
        let age = facts.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age < SETTLED) {
            return Ok(Look::Unsettled);
        }
        let mut bytes = Vec::new();
        file.by_ref().take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LONGEST {
            self.signature = Some(signature);
            return Err(failed(io::Error::other(format!("it is longer than {LONGEST} bytes"))));
        }
        if Signature::from(&file.metadata().map_err(failed)?) != signature {
            return Ok(Look::Unsettled);
        }
        self.signature = Some(signature);
        let prefixes = text::parse(&bytes);
        let prefixes =
            prefixes.map_err(|source| FileFault::Line { path: path.to_owned(), source })?;
        debug!("read {} prefixes from {}", prefixes.len(), path.display());
        (self.prefixes, self.fault) = (prefixes, None);
        Ok(Look::Changed)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Written long ago.
        fn write(&self, name: &str, text: &str) {
            let file = self.at(name);
            fs::write(&file, text).unwrap();
            let old = SystemTime::now() - Duration::from_mins(1);
            File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        }
    }

    fn shown(files: &Files) -> Vec<String> {
        files.prefixes().map(|prefix| prefix.to_string()).collect()
    }

    #[test]
    fn a_bad_line_leaves_what_the_file_said_before() {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("list", "192.0.2.7");
        let mut files = Files::new(&place.at("list"), false);
        assert_eq!(files.look(), Look::Changed);
        assert_eq!(files.look(), Look::Same);
        place.write("list", "192.0.2.8\nnonsense\n");
        assert_eq!(files.look(), Look::Changed);
        assert_eq!(shown(&files), ["192.0.2.7/32"]);
        let fault = files.fault().unwrap();
        assert!(
            fault.ends_with(
                "list, line 2: nonsense is not an IPv4 or IPv6 prefix (write \
            192.0.2.0/24 or 2001:db8::/48)"
            ),
            "{fault}"
        );
        assert_eq!(files.look(), Look::Same, "told once");
        place.write("list", "192.0.2.8\n");
        assert_eq!(files.look(), Look::Changed);
        assert_eq!((shown(&files), files.fault()), (vec!["192.0.2.8/32".to_owned()], None));
    }

    #[test]
    fn a_file_that_is_not_there_leaves_what_it_said_before_and_may_come_back_as_it_was() {
        let place = Place(tempfile::tempdir().unwrap());
        let mut files = Files::new(&place.at("list"), false);
        assert_eq!(files.look(), Look::Changed);
        assert!(!files.has_content() && files.fault().unwrap().contains("No such file"));
        place.write("list", "192.0.2.7");
        assert_eq!((files.look(), files.fault()), (Look::Changed, None));
        fs::rename(place.at("list"), place.at("away")).unwrap();
        assert_eq!(files.look(), Look::Changed);
        assert!(files.fault().is_some() && shown(&files) == ["192.0.2.7/32"]);
        fs::rename(place.at("away"), place.at("list")).unwrap();
        assert_eq!((files.look(), files.fault()), (Look::Changed, None));
    }

    #[test]
    fn a_directory_has_the_prefixes_of_its_files_and_one_bad_file_hides_no_other() {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("a", "192.0.2.1");
        place.write("b", "192.0.2.2");
        place.write(".hidden", "nonsense");
        place.write("a~", "nonsense");
        fs::create_dir(place.at("c")).unwrap();
        let mut files = Files::new(place.0.path(), true);
        assert_eq!(files.look(), Look::Changed);
        assert_eq!((shown(&files).len(), files.fault()), (2, None));
        place.write("a", "nonsense");
        place.write("b", "192.0.2.3\n192.0.2.4");
        assert_eq!(files.look(), Look::Changed);
        assert_eq!(shown(&files), ["192.0.2.1/32", "192.0.2.3/32", "192.0.2.4/32"]);
        assert!(files.fault().unwrap().contains("/a, line 1"));
        fs::remove_file(place.at("a")).unwrap();
        assert_eq!((files.look(), files.fault()), (Look::Changed, None));
        assert_eq!(shown(&files).len(), 2);
    }

    #[test]
    fn a_file_that_is_being_written_is_read_later() {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.at("list"), "192.0.2").unwrap();
        let mut files = Files::new(&place.at("list"), false);
        assert_eq!(files.look(), Look::Unsettled);
        fs::write(place.at("list"), "192.0.2.7").unwrap();
        sleep(2 * SETTLED);
        assert_eq!(files.look(), Look::Changed);
        assert_eq!(shown(&files), ["192.0.2.7/32"]);
    }

    /// Fails when one file that is appended to all the time keeps all others from being read.
    #[test]
    fn a_file_that_is_always_being_written_hides_no_other_for_ever() {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("b", "192.0.2.1");
        let mut files = Files::new(place.0.path(), true);
        assert_eq!(files.look(), Look::Changed);
        place.write("b", "192.0.2.2\n192.0.2.3");
        fs::write(place.at("a"), "198.51.100.1").unwrap();
        assert_eq!((files.look(), shown(&files).len()), (Look::Unsettled, 2));
        files.patience = Duration::ZERO;
        fs::write(place.at("a"), "198.51.100.1").unwrap();
        assert_eq!((files.look(), shown(&files).len()), (Look::Changed, 2));
        assert!(files.fault().unwrap().contains("/a: it is being written again and again"));
        place.write("a", "198.51.100.1");
        assert_eq!((files.look(), files.fault()), (Look::Changed, None));
        assert_eq!(shown(&files).len(), 3);
    }

    /// Fails when what a link led to is let in while the link is made anew.
    #[test]
    fn a_link_that_leads_nowhere_leaves_what_it_led_to() {
        let place = Place(tempfile::tempdir().unwrap());
        let directory = place.at("d");
        fs::create_dir(&directory).unwrap();
        place.write("list", "192.0.2.1");
        std::os::unix::fs::symlink("../list", directory.join("a")).unwrap();
        let mut files = Files::new(&directory, true);
        assert_eq!((files.look(), shown(&files).len()), (Look::Changed, 1));
        fs::rename(place.at("list"), place.at("away")).unwrap();
        assert_eq!((files.look(), shown(&files).len()), (Look::Changed, 1));
        assert!(files.fault().unwrap().contains("/d/a: No such file"));
        fs::remove_file(directory.join("a")).unwrap();
        assert_eq!((files.look(), shown(&files).len()), (Look::Changed, 0));
        assert_eq!(files.fault(), None);
    }

    #[test]
    fn what_is_no_file_is_not_opened_for_long() {
        let place = Place(tempfile::tempdir().unwrap());
        let fifo = place.at("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let mut files = Files::new(&fifo, false);
        files.look();
        assert!(files.fault().unwrap().contains("it is not a file"));
    }
}
