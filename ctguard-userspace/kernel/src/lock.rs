//! Locks for running a guard, writing its settings, capturing, and mounting a bpffs.
//!
//! They are flock(2) locks, which end with their holder. The lock file has the holder's pid, the path of
//! the guard's pins, and the cookie of the network namespace. Every wait is bounded, and its error names
//! the holder.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::fs::{AtFlags, major, minor, statat};
use thiserror::Error;

use crate::{namespace, run_directory};

const DAEMON: &str = "lock";
const WRITING: &str = "writing";
const CAPTURING: &str = "capturing";
const RELOADING: &str = "reloading";
const MOUNTING: &str = "mounting";

/// A second daemon fails soon. It waits only because others take the lock for a moment to look.
const PATIENCE_WITH_DAEMON: Duration = Duration::from_millis(200);
/// Commands hold the other locks for milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

#[derive(Debug, Error)]
pub enum LockError {
    #[error(
        "a ctguard runs already for {} ({holder}); stop it first: {}systemctl stop ctguard, or, to \
         remove its guard too, ctguard detach --stop",
        pins.display(), holder.pid.map(|pid| format!("kill {pid}, ")).unwrap_or_default()
    )]
    Daemon { pins: PathBuf, holder: Holder },
    #[error(
        "a capture runs already ({holder}); end it first{}",
        holder.pid.map(|pid| format!(": kill {pid}")).unwrap_or_default()
    )]
    Capture { holder: Holder },
    #[error("{holder} has held {} for {} s or longer", path.display(), PATIENCE.as_secs())]
    Busy { path: PathBuf, holder: Holder },
    #[error("cannot lock {}", path.display())]
    File { path: PathBuf, source: io::Error },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    pub pid: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else { return write!(f, "another process") };
        write!(f, "pid {pid}")?;
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let words: Vec<_> = words.split('\0').filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            return Ok(());
        }
        // It is printed to a terminal.
        let shown = words.join(" ").replace(char::is_control, "?");
        write!(f, ": {}", shown.chars().take(80).collect::<String>())
    }
}

/// A lock, held until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Lock {
    path: PathBuf,
    _file: Arc<File>,
}

impl Lock {
    /// Also removes the file.
    pub fn remove(self) {
        // A file that stays locks nobody out.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes this process the daemon of the guard at `pins`; the error names another one.
pub fn for_daemon(pins: &Path) -> Result<Lock, LockError> {
    take_alone(pins, DAEMON, |holder| LockError::Daemon { pins: pins.to_owned(), holder })
}

/// Keeps others from capturing at the guard at `pins`: its buffers are one capture's.
pub fn for_capturing(pins: &Path) -> Result<Lock, LockError> {
    take_alone(pins, CAPTURING, |holder| LockError::Capture { holder })
}

/// A lock that its holder keeps for as long as it runs.
fn take_alone(
    pins: &Path,
    purpose: &str,
    held: impl FnOnce(Holder) -> LockError,
) -> Result<Lock, LockError> {
    take(&name(pins, purpose), pins, PATIENCE_WITH_DAEMON).map_err(|error| match error {
        LockError::Busy { holder, .. } => held(holder),
        error @ (LockError::Daemon { .. } | LockError::Capture { .. } | LockError::File { .. }) => {
            error
        }
    })
}

/// Keeps others from writing settings of the guard at `pins`; hold it only for a moment.
pub fn for_writing(pins: &Path) -> Result<Lock, LockError> {
    take(&name(pins, WRITING), pins, PATIENCE)
}

/// Like [`for_writing`] without waiting; `None` while somebody else has the lock.
pub fn try_for_writing(pins: &Path) -> Result<Option<Lock>, LockError> {
    match take(&name(pins, WRITING), pins, Duration::ZERO) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Busy { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps others from asking the daemon of the guard at `pins` to reload, so that each gets its own
/// answer.
pub fn for_reloading(pins: &Path) -> Result<Lock, LockError> {
    take(&name(pins, RELOADING), pins, PATIENCE)
}

/// Keeps others from mounting or removing a bpffs; hold it only for a moment.
pub fn for_mounting() -> Result<Lock, LockError> {
    take(MOUNTING, Path::new(""), PATIENCE)
}

/// Like [`for_mounting`] without waiting.
pub fn try_for_mounting() -> Result<Lock, LockError> {
    take(MOUNTING, Path::new(""), Duration::ZERO)
}

/// Removes the files of [`for_writing`] and [`for_capturing`].
pub fn forget_writing(pins: &Path) {
    for purpose in [WRITING, CAPTURING] {
        let _ = fs::remove_file(Path::new(run_directory::PATH).join(name(pins, purpose)));
    }
}

/// The daemon of the guard at `pins`, if one runs.
pub fn daemon_of(pins: &Path) -> Option<Holder> {
    holder_of(&Path::new(run_directory::PATH).join(name(pins, DAEMON)))
}

/// Paths of pins, from the lock files of daemons.
pub fn pinned_guards() -> Vec<PathBuf> {
    let suffix = format!(".{DAEMON}");
    let entries = fs::read_dir(run_directory::PATH).into_iter().flatten().flatten();
    let locks = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&suffix));
    locks
        .filter_map(|entry| {
            fs::read_to_string(entry.path()).ok()?.lines().nth(1).map(PathBuf::from)
        })
        .collect()
}

/// Whether the last daemon of the guard at `pins` ran in another network namespace than this thread's.
/// That one may be gone: the kernel gives its inode number, and so its pins, to a new one.
pub fn is_of_other_namespace(pins: &Path) -> bool {
    let file = Path::new(run_directory::PATH).join(name(pins, DAEMON));
    let text = fs::read_to_string(file).unwrap_or_default();
    let last = text.lines().nth(2).and_then(|line| line.parse::<u64>().ok());
    last.is_some_and(|last| namespace::cookie().is_some_and(|own| own != last))
}

fn take(name: &str, pins: &Path, patience: Duration) -> Result<Lock, LockError> {
    let path = Path::new(run_directory::PATH).join(name);
    let mut waited = Duration::ZERO;
    loop {
        match try_take(name, pins) {
            Ok(Some(file)) => return Ok(Lock { path, _file: Arc::new(file) }),
            Ok(None) if waited < patience => {}
            Ok(None) => {
                let holder = holder_of(&path).unwrap_or_default();
                return Err(LockError::Busy { path, holder });
            }
            Err(source) => return Err(LockError::File { path, source }),
        }
        thread::sleep(POLL);
        waited += POLL;
    }
}

/// `None` while somebody else has the lock.
fn try_take(name: &str, pins: &Path) -> io::Result<Option<File>> {
    let directory = run_directory::prepare()?;
    let mut file = run_directory::open_lock(&directory, name)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The last holder may have removed the file after it was opened here.
    let there = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|there| there.st_ino);
    if there != Ok(file.metadata()?.ino()) {
        return Ok(None);
    }
    file.set_len(0)?;
    writeln!(file, "{}\n{}", std::process::id(), pins.display())?;
    if let Some(cookie) = namespace::cookie() {
        writeln!(file, "{cookie}")?;
    }
    Ok(Some(file))
}

fn holder_of(path: &Path) -> Option<Holder> {
    let file = File::open(path).ok()?;
    let facts = file.metadata().ok()?;
    let id = format!("{:02x}:{:02x}:{}", major(facts.dev()), minor(facts.dev()), facts.ino());
    let pid = listed(&fs::read_to_string("/proc/locks").ok()?, &id);
    // The list lacks holders in other pid namespaces. Their own pid, in the file, is another's here.
    let is_held = pid.is_some() || matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    is_held.then_some(Holder { pid })
}

/// The pid of the holder, from `/proc/locks` (`proc_locks(5)`).
fn listed(locks: &str, id: &str) -> Option<u32> {
    let holders = locks.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let mut ours = holders.filter(|words| words.first() == Some(&"FLOCK"));
    ours.find_map(|words| if words.get(4) == Some(&id) { words.get(3)?.parse().ok() } else { None })
}

/// `/run/ctguard/4026531840` becomes `4026531840`; other paths are written in full.
fn name(pins: &Path, purpose: &str) -> String {
    let path = pins.strip_prefix("/run/ctguard").or_else(|_| pins.strip_prefix("/"));
    let path = path.unwrap_or(pins).to_string_lossy().replace('-', "--").replace('/', "-");
    format!("{path}.{purpose}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_path_is_known_by_its_namespace() {
        assert_eq!(name(Path::new("/run/ctguard/4026531840"), DAEMON), "4026531840.lock");
    }

    #[test]
    fn different_paths_have_different_locks() {
        assert_eq!(name(Path::new("/sys/fs/bpf/a"), WRITING), "sys-fs-bpf-a.writing");
        assert_ne!(name(Path::new("/a/b"), DAEMON), name(Path::new("/a-b"), DAEMON));
    }

    #[test]
    fn who_waits_for_a_lock_is_not_taken_for_its_holder() {
        let locks = "1: -> FLOCK  ADVISORY  WRITE 7 00:18:42 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 8 00:18:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:18:42 0 EOF\n";
        assert_eq!(listed(locks, "00:18:42"), Some(9));
        assert_eq!(listed(locks, "00:18:4"), None);
    }
}
