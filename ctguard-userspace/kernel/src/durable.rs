//! Replaces and removes files so that a crash or power loss leaves the old state or the new one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

use rustix::io::Errno;

/// Writes `bytes` to `temporary`, then renames it to `path`. Makes the directory if it is missing, and
/// follows no link of either name. A file that was there passes on its mode, and its owner if possible.
/// Without room, nothing is left of it.
pub fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let replaced = try_replace(path, temporary, bytes);
    if replaced.is_err() {
        let _ = fs::remove_file(temporary);
    }
    replaced
}

fn try_replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let former = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
    let mut options = File::options();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.mode(if former.is_some() { 0o600 } else { 0o666 }).open(temporary)?;
    // Before anything is in it that not all may read.
    if let Some(former) = former {
        // Only root may give a file away.
        let _ = fchown(&file, Some(former.uid()), Some(former.gid()));
        file.set_permissions(fs::Permissions::from_mode(former.mode() & 0o777))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    sync_directory_of(path)
}

/// Whether the file was there.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    match File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all() {
        // Some file systems cannot sync directories, and order renames themselves.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_that_fails_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let (path, temporary) = (directory.path().join("file"), directory.path().join("new"));
        // A directory cannot be replaced by a file.
        fs::create_dir(&path).unwrap();
        replace(&path, &temporary, b"bytes").unwrap_err();
        assert!(path.is_dir() && !temporary.exists());
    }

    /// Fails when a file that only root may read can be read by all after it was replaced.
    #[test]
    fn a_file_that_is_replaced_keeps_its_mode_and_owner() {
        let directory = tempfile::tempdir().unwrap();
        let (path, temporary) = (directory.path().join("file"), directory.path().join("new"));
        replace(&path, &temporary, b"first").unwrap();
        fs::write(directory.path().join("other"), "").unwrap();
        let usual = fs::metadata(directory.path().join("other")).unwrap().mode();
        assert_eq!(
            fs::metadata(&path).unwrap().mode(),
            usual,
            "a new file has what the umask leaves"
        );
        for mode in [0o600, 0o640, 0o444] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(&path, Some(5), Some(7)).unwrap();
            }
            // An interrupted write left it.
            fs::write(&temporary, "half").unwrap();
            let former = fs::metadata(&path).unwrap();
            replace(&path, &temporary, b"second").unwrap();
            let new = fs::metadata(&path).unwrap();
            let facts = |it: &fs::Metadata| (it.mode(), it.uid(), it.gid());
            assert_eq!(facts(&new), facts(&former), "{mode:o}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }
}
