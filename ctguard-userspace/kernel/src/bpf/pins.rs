//! Paths of a guard's pins. Names have no dots, which a bpffs forbids.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use ctguard_layout::{maps, programs};

use super::syscall::{self, LinkInfo};
use crate::namespace;

/// Has a directory for each network namespace, named by its inode number.
const DEFAULT_PARENT: &str = "/run/ctguard";

const XDP: &str = "xdp_";
const TCX: &str = "tcx_";
/// Directories that stand for what the kernel cannot pin: a clsact filter, and its qdisc.
const FILTER: &str = "filter_";
const QDISC: &str = "clsact_";

const PROGRAMS: [&str; 3] = [programs::CLOCK, programs::EGRESS, programs::INGRESS];

/// The directory of one guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins(PathBuf);

impl Pins {
    pub fn at(path: impl AsRef<Path>) -> Self {
        // Beside a path with a slash at its end is inside of it.
        Self(path.as_ref().components().collect())
    }

    pub fn of_this_namespace() -> io::Result<Self> {
        Ok(Self(Path::new(DEFAULT_PARENT).join(namespace::number()?.to_string())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a guard is made that will take this one's place (see [`super::beside`]).
    pub(super) fn next(&self) -> Self {
        self.beside("_next")
    }

    /// Where this one is for the moment in which the next one takes its place.
    pub(super) fn former(&self) -> Self {
        self.beside("_former")
    }

    fn beside(&self, suffix: &str) -> Self {
        let mut path = self.0.clone().into_os_string();
        path.push(suffix);
        Self(path.into())
    }

    /// Whether a pin of this name is neither a link nor a program, in whatever release.
    pub(super) fn is_map(name: &str) -> bool {
        let is_link = [XDP, TCX].iter().any(|prefix| name.starts_with(prefix));
        !is_link && !PROGRAMS.contains(&name)
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn xdp(&self, ifindex: u32) -> PathBuf {
        self.0.join(format!("{XDP}{ifindex}"))
    }

    pub fn tcx(&self, ifindex: u32) -> PathBuf {
        self.0.join(format!("{TCX}{ifindex}"))
    }

    pub fn filter(&self, ifindex: u32) -> PathBuf {
        self.0.join(format!("{FILTER}{ifindex}"))
    }

    pub fn qdisc(&self, ifindex: u32) -> PathBuf {
        self.0.join(format!("{QDISC}{ifindex}"))
    }

    /// Interfaces with pins, whether they still exist or not.
    pub fn attached(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let mut prefixes = [XDP, TCX, FILTER, QDISC].iter();
            found
                .extend(prefixes.find_map(|prefix| name.strip_prefix(prefix)?.parse::<u32>().ok()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The pinned XDP link of `ifindex`, if there is one.
    pub fn xdp_link(&self, ifindex: u32) -> io::Result<Option<(OwnedFd, LinkInfo)>> {
        open_link(&self.xdp(ifindex))
    }

    /// Whether that link is still on the interface that has this index.
    pub fn has_xdp(&self, ifindex: u32) -> io::Result<bool> {
        let link = self.xdp_link(ifindex)?;
        Ok(link.is_some_and(|(_, info)| info.ifindex == ifindex))
    }

    pub(super) fn tcx_link(&self, ifindex: u32) -> io::Result<Option<(OwnedFd, LinkInfo)>> {
        open_link(&self.tcx(ifindex))
    }

    pub fn programs(&self) -> io::Result<Vec<(&'static str, OwnedFd)>> {
        let mut found = Vec::new();
        for name in PROGRAMS {
            match syscall::open_pin(&self.program(name)) {
                Ok(program) => found.push((name, program)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The first map or program of a guard that is not pinned.
    pub fn lack(&self) -> Option<&'static str> {
        maps::PINNED.into_iter().chain(PROGRAMS).find(|name| !self.map(name).exists())
    }

    /// Pins a program in place of an older one; the path is never missing.
    pub fn replace_program(&self, name: &str, program: impl AsFd) -> io::Result<()> {
        let next = self.0.join(format!("next_{name}"));
        remove_if_there(&next)?;
        syscall::pin(program.as_fd(), &next)?;
        fs::rename(&next, self.program(name))
    }
}

fn open_link(path: &Path) -> io::Result<Option<(OwnedFd, LinkInfo)>> {
    match syscall::open_pin(path) {
        Ok(link) => {
            let info = syscall::link_info(link.as_fd())?;
            Ok(Some((link, info)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_file(path))
}

pub(super) fn remove_directory_if_there(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_dir(path))
}

pub(super) fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_made_beside_the_one_that_it_replaces() {
        let pins = Pins::at("/run/ctguard/4026531840");
        assert_eq!(pins.next().path(), Path::new("/run/ctguard/4026531840_next"));
        assert_eq!(pins.former().path(), Path::new("/run/ctguard/4026531840_former"));
        assert_eq!(Pins::at("/run/ctguard/own/").next().path(), Path::new("/run/ctguard/own_next"));
    }

    #[test]
    fn links_and_programs_are_told_from_maps_by_their_names() {
        for name in ctguard_layout::maps::PINNED {
            assert!(Pins::is_map(name), "{name}");
        }
        assert!(Pins::is_map("of_another_release"));
        for name in ["xdp_2", "tcx_17"].into_iter().chain(PROGRAMS) {
            assert!(!Pins::is_map(name), "{name}");
        }
    }
}
