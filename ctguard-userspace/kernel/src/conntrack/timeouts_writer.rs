//! Reads and writes single timeouts of the kernel.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const DIRECTORY: &str = "/proc/sys/net/netfilter";

/// Timeouts of the caller's network namespace.
#[derive(Clone, Debug)]
pub struct TimeoutSettings(PathBuf);

impl TimeoutSettings {
    pub fn of_the_kernel() -> Self {
        Self::at(Path::new(DIRECTORY))
    }

    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// In seconds; `name` is without `nf_conntrack_`. `None` if there is no such setting.
    pub fn read(&self, name: &str) -> Option<u32> {
        fs::read_to_string(self.path(name)).ok()?.trim().parse().ok()
    }

    /// Applies to entries that are made or refreshed from now on.
    pub fn write(&self, name: &str, seconds: u32) -> io::Result<()> {
        fs::write(self.path(name), seconds.to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("nf_conntrack_{name}"))
    }
}
