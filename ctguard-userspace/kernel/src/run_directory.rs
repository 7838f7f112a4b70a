//! The directory of locks, events and records, which a reboot empties.
//!
//! It is not among the pins, because a bpffs holds no plain files. Only root may enter it, because
//! whoever can open a lock file can hold the lock.

use std::{
    fs::{DirBuilder, File},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, fchmod, fstat, open, openat},
    process::geteuid,
};

use crate::namespace;

pub const PATH: &str = "/run/ctguard-private";

const OWNER_ONLY: Mode = Mode::RWXU;

/// The path of `name` for this network namespace.
pub fn of_this_namespace(name: &str) -> io::Result<PathBuf> {
    Ok(Path::new(PATH).join(format!("{}.{name}", namespace::number()?)))
}

/// Makes the directory, or checks the existing one.
pub fn prepare() -> io::Result<OwnedFd> {
    prepare_at(Path::new(PATH))
}

/// Opens or makes a lock file in the directory.
pub fn open_lock(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn prepare_at(path: &Path) -> io::Result<OwnedFd> {
    match DirBuilder::new().mode(OWNER_ONLY.as_raw_mode()).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty())?;
    let facts = fstat(&directory)?;
    if facts.st_uid != geteuid().as_raw() {
        let text = format!("it belongs to user {}; remove it", facts.st_uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if !OWNER_ONLY.contains(Mode::from_raw_mode(facts.st_mode)) {
        fchmod(&directory, OWNER_ONLY)?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_directory_and_its_locks_are_the_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("private");
        let directory = prepare_at(&path).unwrap();
        open_lock(&directory, "1.lock").unwrap();
        assert_eq!((mode(&path), mode(&path.join("1.lock"))), (0o700, 0o600));
    }

    #[test]
    fn a_directory_that_others_may_enter_is_closed_to_them() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("private");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        prepare_at(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn neither_a_link_nor_a_file_is_taken_for_the_directory() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("private");
        symlink(parent.path(), &path).unwrap();
        assert!(prepare_at(&path).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(prepare_at(&path).is_err());
    }

    #[test]
    fn a_link_is_not_taken_for_a_lock() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("private");
        let directory = prepare_at(&path).unwrap();
        symlink("elsewhere", path.join("1.lock")).unwrap();
        assert!(open_lock(&directory, "1.lock").is_err());
        assert!(!path.join("elsewhere").exists());
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("private");
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        let error = prepare_at(&path).unwrap_err();
        assert!(error.to_string().contains("65534"), "{error}");
    }
}
