//! Opens files that others chose, and finds where to write: symlinks are resolved below the root and never lead out of it,
//! only regular files are read, and of each no more than its kind may have.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Dir, Mode, OFlags, ResolveFlags, makedev, open, openat2, readlinkat},
    io::Errno,
};

/// The most bytes that are read of a setting, of another file of the kernel's, and of a file on disk.
const SETTING: u64 = 64 << 10;
const KERNEL: u64 = 16 << 20;
pub(super) const DISK: u64 = 4 << 20;
/// The most names that are read of a directory; `/proc` has one for each process.
const NAMES: usize = 1 << 18;
/// `openat2` gives up where something is renamed meanwhile.
const ATTEMPTS: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

/// A path in a directory that was found below the root, and stays open.
#[derive(Debug)]
pub struct Place {
    pub path: PathBuf,
    _directory: OwnedFd,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn is_this_machine(&self) -> bool {
        self.0 == Path::new("/")
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// A file's text, lossily decoded. Fails where it is longer than its kind may be: half of a file
    /// would be judged wrongly.
    pub(super) fn text(&self, path: &str) -> io::Result<String> {
        let bound = bound(path);
        let (mut bytes, mut file) = (Vec::new(), self.file(path)?.take(bound + 1));
        file.read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > bound) {
            return Err(other(format!("longer than {} KiB, and not read", bound >> 10)));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A regular file, or `/dev/null`, to which systemd has a file linked that is to be ignored.
    pub(super) fn file(&self, path: &str) -> io::Result<File> {
        self.file_to(path, File::options().read(true))
    }

    pub(super) fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let mut file = self.file_to(path, File::options().write(true).truncate(true))?;
        file.write_all(text.as_bytes())
    }

    fn file_to(&self, path: &str, options: &OpenOptions) -> io::Result<File> {
        // Opening a device can do something: a watchdog's reboots the machine a minute later.
        let found = File::from(self.open(path, OFlags::PATH)?);
        let metadata = found.metadata()?;
        let kind = metadata.file_type();
        let is_null = kind.is_char_device() && metadata.rdev() == makedev(1, 3);
        if kind.is_file() || is_null {
            return options.open(format!("/proc/self/fd/{}", found.as_raw_fd()));
        }
        Err(other(if kind.is_dir() { "a directory, not a file" } else { "not a regular file" }))
    }

    /// Where to make, replace or remove `path`.
    pub(super) fn place(&self, path: &str) -> io::Result<Place> {
        let path = Path::new(path);
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(other("not the path of a file"));
        };
        let directory = self.open(&above.to_string_lossy(), OFlags::PATH | OFlags::DIRECTORY)?;
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        Ok(Place { path: Path::new(&path).join(name), _directory: directory })
    }

    /// Opens a directory, which is made if it is missing.
    pub(super) fn directory(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = Path::new(path).parent().unwrap_or(Path::new("/"));
                self.directory(&above.to_string_lossy())?;
                fs::create_dir(self.place(path)?.path)?;
                Ok(self.open(path, flags)?.into())
            }
            opened => Ok(opened?.into()),
        }
    }

    pub(super) fn metadata(&self, path: &str) -> io::Result<fs::Metadata> {
        File::from(self.open(path, OFlags::PATH)?).metadata()
    }

    pub(super) fn link(&self, path: &str) -> io::Result<String> {
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        Ok(readlinkat(link, "", Vec::new())?.to_string_lossy().into_owned())
    }

    pub(super) fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let directory = self.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
            if names.len() > NAMES {
                return Err(other(format!("more than {NAMES} names, and not read")));
            }
        }
        Ok(names)
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(&self.0, directory, Mode::empty())?;
        let below = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..ATTEMPTS {
            match openat2(&root, path, flags, Mode::empty(), below) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Linux before 5.6, or a container that does not permit it.
                Err(Errno::NOSYS | Errno::PERM) => return self.open_checked(path, flags),
                opened => return Ok(opened?),
            }
        }
        Err(other("renamed again and again meanwhile"))
    }

    /// Without the kernel's help a link out of the root is refused in place of being resolved in it.
    fn open_checked(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = self.path(path);
        if !self.is_this_machine() && !path.canonicalize()?.starts_with(self.0.canonicalize()?) {
            return Err(other("a link that leads out of the root"));
        }
        Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
    }
}

fn bound(path: &str) -> u64 {
    match path.trim_start_matches('/') {
        path if path.starts_with("proc/sys/") => SETTING,
        path if ["proc/", "sys/", "dev/"].iter().any(|top| path.starts_with(top)) => KERNEL,
        _ => DISK,
    }
}

fn other(reason: impl Into<String>) -> io::Error {
    io::Error::other(reason.into())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, sync::mpsc::channel, thread, time::Duration};

    use rustix::fs::{FileType, mknodat};

    use super::*;

    fn made() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/plain"), "inside").unwrap();
        let root = Root::new(directory.path().to_path_buf());
        (directory, root)
    }

    fn reason(root: &Root, path: &str) -> String {
        root.text(path).unwrap_err().to_string()
    }

    /// Fails, or hangs, when something is opened that has no end or waits for a writer.
    #[test]
    fn only_regular_files_are_read() {
        let (directory, root) = made();
        mknodat(CWD, directory.path().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(reason(&root, "/fifo"), "not a regular file");
        assert_eq!(reason(&root, "/etc"), "a directory, not a file");
        symlink("loop", directory.path().join("loop")).unwrap();
        assert_eq!(root.text("/loop").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        let this = Root::new(PathBuf::from("/"));
        assert_eq!(reason(&this, "/dev/zero"), "not a regular file");
        assert_eq!(this.text("/dev/null").unwrap(), "");
    }

    /// Fails when what is no file is opened before anybody looks what it is: a writer of a FIFO waits
    /// until somebody opens it to read.
    #[test]
    fn what_is_no_regular_file_is_not_even_opened() {
        let (directory, root) = made();
        let fifo = directory.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let (begins, begun) = channel();
        let writer = {
            let fifo = fifo.clone();
            thread::spawn(move || {
                begins.send(()).unwrap();
                fs::OpenOptions::new().write(true).open(fifo).unwrap();
            })
        };
        begun.recv().unwrap();
        for _ in 0..100 {
            assert_eq!(reason(&root, "/fifo"), "not a regular file");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!writer.is_finished(), "somebody opened it");
        drop(File::open(fifo).unwrap());
        writer.join().unwrap();
    }

    #[test]
    fn a_file_longer_than_its_kind_may_be_is_told_and_not_read() {
        let (directory, root) = made();
        File::create(directory.path().join("etc/long")).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(reason(&root, "/etc/long"), "longer than 4096 KiB, and not read");
        File::create(directory.path().join("etc/short")).unwrap().set_len(DISK).unwrap();
        assert_eq!(root.text("/etc/short").unwrap().len(), 4 << 20);
    }

    /// Fails when an audit of a copy reads the files of the machine that it runs on.
    #[test]
    fn links_are_resolved_below_the_root_and_never_lead_out_of_it() {
        let (directory, root) = made();
        let outside = directory.path().join("../outside-of-the-root");
        for (name, to) in [
            ("absolute", "/etc/plain"),
            ("climbing", "../../../../../../../etc/plain"),
            ("zero", "/dev/zero"),
            ("out", outside.to_str().unwrap()),
        ] {
            symlink(to, directory.path().join("etc").join(name)).unwrap();
        }
        assert_eq!(root.text("/etc/absolute").unwrap(), "inside");
        assert_eq!(root.text("/etc/climbing").unwrap(), "inside");
        for absent in ["/etc/zero", "/etc/out", "/../../etc/passwd"] {
            assert_eq!(root.text(absent).unwrap_err().kind(), io::ErrorKind::NotFound, "{absent}");
        }
        symlink("/", directory.path().join("top")).unwrap();
        assert_eq!(root.names("/top/etc").unwrap().len(), 5);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        assert!(root.open_checked("/etc/plain", flags).is_ok(), "without openat2");
        fs::write(&outside, "").unwrap();
        let refused = root.open_checked("/etc/out", flags).unwrap_err().to_string();
        fs::remove_file(outside).unwrap();
        assert_eq!(refused, "a link that leads out of the root");
    }
}
