//! Where a guard's objects are pinned. A bpffs forbids dots, so names have none.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use ctguard_layout::programs;

use super::syscall::{self, LinkInfo};
use crate::namespace;

/// Under this, each network namespace has a directory named by its inode number.
const DEFAULT_PARENT: &str = "/run/ctguard";

const XDP: &str = "xdp_";
const TCX: &str = "tcx_";
/// Directories that remember what the kernel cannot pin: a clsact filter, and the qdisc under it.
const FILTER: &str = "filter_";
const QDISC: &str = "clsact_";

/// The directory of one guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins(PathBuf);

impl Pins {
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory of the network namespace that this process is in.
    pub fn of_this_namespace() -> io::Result<Self> {
        Ok(Self(Path::new(DEFAULT_PARENT).join(namespace::number()?.to_string())))
    }

    pub fn path(&self) -> &Path {
        &self.0
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

    /// Interfaces that something is attached to, or was.
    pub fn attached(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let number: Option<u32> = [XDP, TCX, FILTER, QDISC]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix)?.parse().ok());
            found.extend(number);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// What the pinned XDP link of `ifindex` is attached to; none without the pin.
    pub fn xdp_link(&self, ifindex: u32) -> io::Result<Option<(OwnedFd, LinkInfo)>> {
        open_link(&self.xdp(ifindex))
    }

    pub(super) fn tcx_link(&self, ifindex: u32) -> io::Result<Option<(OwnedFd, LinkInfo)>> {
        open_link(&self.tcx(ifindex))
    }

    /// The programs that are pinned, by name.
    pub fn programs(&self) -> io::Result<Vec<(&'static str, OwnedFd)>> {
        let mut found = Vec::new();
        for name in [programs::CLOCK, programs::EGRESS, programs::INGRESS] {
            match syscall::open_pin(&self.program(name)) {
                Ok(program) => found.push((name, program)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Pins a program in the place of an older one, which is never missing in between.
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

/// Removes a pin, or says that it was gone already.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
