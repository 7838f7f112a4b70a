//! Tells that a file or a directory may have changed.
//!
//! It is the directories on the way that are watched: a file that is replaced by a rename is another
//! one, and a link may lead elsewhere later (Kubernetes swaps `..data`).

use std::{
    collections::BTreeSet,
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

/// Links that are followed, as the kernel does.
const MOST_LINKS: usize = 40;

#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

impl Watch {
    /// Watches what `path` is reached by, and, if it is a directory, what is in it.
    pub(super) fn on(path: &Path) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        for directory in directories(path) {
            // It may be gone, and reading the feed will say so.
            let _ = add_watch(&inotify, &directory, changes);
        }
        Ok(Self(inotify))
    }

    /// Forgets what has happened so far.
    pub(super) fn drain(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        while events.next().is_ok() {}
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Directories in which the path, its links and what they lead to are.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let mut pending = vec![path.to_owned()];
    let mut links = 0;
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            directories.insert(path.clone());
        }
        // A link may be anywhere on the way.
        for part in path.ancestors().filter(|part| part.parent().is_some()) {
            let Ok(target) = fs::read_link(part) else { continue };
            let Some(parent) = part.parent() else { continue };
            directories.insert(parent.to_owned());
            links += 1;
            if links <= MOST_LINKS {
                let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
                pending.push(parent.join(target).join(rest));
            }
        }
        directories.extend(path.parent().map(Path::to_owned));
    }
    directories
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn has_changed(watch: &Watch) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let changed = Reader::new(&watch.0, &mut buffer).next().is_ok();
        watch.drain();
        changed
    }

    #[test]
    fn a_file_that_is_written_renamed_or_removed_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        let watch = Watch::on(&path).unwrap();
        assert!(!has_changed(&watch));
        fs::write(&path, "192.0.2.7").unwrap();
        assert!(has_changed(&watch));
        let other = directory.path().join("other");
        fs::write(&other, "").unwrap();
        watch.drain();
        fs::rename(&other, &path).unwrap();
        assert!(has_changed(&watch));
        fs::remove_file(&path).unwrap();
        assert!(has_changed(&watch));
    }

    /// As Kubernetes mounts a `ConfigMap`: `list -> ..data/list`, `..data -> ..1`, then `..data -> ..2`.
    #[test]
    fn a_link_on_the_way_that_is_swapped_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("list"), "").unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/list", at("list")).unwrap();
        let watch = Watch::on(&at("list")).unwrap();
        fs::write(at("..1").join("list"), "192.0.2.7").unwrap();
        assert!(has_changed(&watch), "where the links lead");
        symlink("..2", at("..new")).unwrap();
        watch.drain();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert!(has_changed(&watch), "the swap");
    }

    #[test]
    fn links_that_go_round_end() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(directories(&at("a")).contains(directory.path()));
    }
}
