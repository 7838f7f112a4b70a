//! The kernel's timeouts one by one, to read and to write.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const DIRECTORY: &str = "/proc/sys/net/netfilter";

/// The timeouts of the network namespace of whoever calls.
#[derive(Clone, Debug)]
pub struct TimeoutSettings(PathBuf);

impl TimeoutSettings {
    pub fn of_the_kernel() -> Self {
        Self::at(Path::new(DIRECTORY))
    }

    /// Files of the kernel's names in another directory.
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Seconds of the setting with this name behind `nf_conntrack_`; `None` where there is none.
    pub fn read(&self, name: &str) -> Option<u32> {
        fs::read_to_string(self.path(name)).ok()?.trim().parse().ok()
    }

    /// Holds for entries that are made or refreshed from then on.
    pub fn write(&self, name: &str, seconds: u32) -> io::Result<()> {
        fs::write(self.path(name), seconds.to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("nf_conntrack_{name}"))
    }
}
