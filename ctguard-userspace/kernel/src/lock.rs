//! One daemon for each pin path: a lock that dies with its holder and tells who it is.
//!
//! A bpffs holds no plain files, so the lock lies beside it in `/run`.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    process::{Flock, FlockType, fcntl_getlk},
};
use thiserror::Error;

use crate::bpf::Pins;

const DIRECTORY: &str = "/run";
const PREFIX: &str = "ctguard.";
const SUFFIX: &str = ".lock";

/// Why the lock is not ours.
#[derive(Debug, Error)]
pub enum LockError {
    #[error(
        "a ctguard runs already for {} (pid {pid}); stop it first: kill {pid}, or systemctl stop \
         ctguard", path.display()
    )]
    Held { path: PathBuf, pid: u32 },
    #[error("cannot lock {}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// The lock, held.
#[derive(Debug)]
pub struct DaemonLock {
    path: PathBuf,
    _file: File,
}

impl DaemonLock {
    /// Takes the lock of `pins`, or tells who has it.
    pub fn acquire(pins: &Pins) -> Result<Self, LockError> {
        let path = path_of(pins);
        loop {
            match try_lock(pins, &path) {
                Ok(Some(file)) => return Ok(Self { path, _file: file }),
                // The last holder removed the file as we opened it.
                Ok(None) => {}
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => {
                    let pid = holder(pins).unwrap_or_default();
                    return Err(LockError::Held { path: pins.path().to_owned(), pid });
                }
                Err(source) => return Err(LockError::File { path, source }),
            }
        }
    }

    /// Removes the file with the lock.
    pub fn remove(self) {
        // What is left is an empty file that locks nobody out.
        let _ = fs::remove_file(&self.path);
    }
}

/// The pid of the daemon of `pins`, if one runs.
pub fn holder(pins: &Pins) -> Option<u32> {
    holder_of(&path_of(pins))
}

/// The guard whose link runs `program` on `ifindex`, and its daemon.
pub fn guard_of(ifindex: u32, program: u32) -> Option<(Pins, Option<u32>)> {
    fs::read_dir(DIRECTORY).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        if !(name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            return None;
        }
        let text = fs::read_to_string(entry.path()).ok()?;
        let pins = Pins::at(PathBuf::from(text.lines().nth(1)?));
        let (_, info) = pins.xdp_link(ifindex).ok()??;
        (info.program == program).then(|| (pins, holder_of(&entry.path())))
    })
}

fn try_lock(pins: &Pins, path: &Path) -> io::Result<Option<File>> {
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::ACCESS) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => return Err(error.into()),
    }
    if fs::metadata(path).map(|there| there.ino()).ok() != Some(file.metadata()?.ino()) {
        return Ok(None);
    }
    file.set_len(0)?;
    writeln!(file, "{}\n{}", std::process::id(), pins.path().display())?;
    Ok(Some(file))
}

/// Asks without taking the lock, so that asking disturbs nobody.
fn holder_of(path: &Path) -> Option<u32> {
    let file = File::open(path).ok()?;
    let lock = fcntl_getlk(&file, &Flock::from(FlockType::ReadLock)).ok()??;
    let pid = lock.pid.map(|pid| pid.as_raw_nonzero().get());
    // The holder lies in another pid namespace: its own number is the best there is.
    let pid = pid.or_else(|| fs::read_to_string(path).ok()?.lines().next()?.parse().ok());
    u32::try_from(pid?).ok()
}

fn path_of(pins: &Pins) -> PathBuf {
    Path::new(DIRECTORY).join(file_name(pins.path()))
}

/// `/run/ctguard/4026531840` becomes `ctguard.4026531840.lock`, other paths are spelt out.
fn file_name(pins: &Path) -> String {
    let path = pins.strip_prefix("/run/ctguard").or_else(|_| pins.strip_prefix("/"));
    let path = path.unwrap_or(pins).to_string_lossy().replace('-', "--").replace('/', "-");
    format!("{PREFIX}{path}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_path_is_known_by_its_namespace() {
        assert_eq!(file_name(Path::new("/run/ctguard/4026531840")), "ctguard.4026531840.lock");
    }

    #[test]
    fn different_paths_have_different_locks() {
        assert_eq!(file_name(Path::new("/sys/fs/bpf/a")), "ctguard.sys-fs-bpf-a.lock");
        assert_ne!(file_name(Path::new("/a/b")), file_name(Path::new("/a-b")));
    }
}
