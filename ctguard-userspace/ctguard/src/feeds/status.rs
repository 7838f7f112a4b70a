//! What is known about each feed: a file that `ctguard feeds`, `status` and `metrics` read.

use std::{fs, io, path::PathBuf};

use ctguard_kernel::run_directory;
use serde::{Deserialize, Serialize};

use crate::files::{FileError, publish};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FeedsStatus {
    pub(crate) feeds: Vec<FeedStatus>,
    /// Why the lists in the kernel are not what the feeds say.
    pub(crate) fault: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FeedStatus {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// The list that its prefixes are added to.
    pub(crate) list: String,
    /// Where it comes from.
    pub(crate) source: String,
    /// As the configuration has it, in a line.
    pub(crate) settings: String,
    /// Its bit in the entries of the lists.
    pub(crate) slot: u32,
    /// The packets counted under its slot are its own. Not in a file of an earlier version.
    #[serde(default)]
    pub(crate) is_counted: bool,
    /// Prefixes that it lists.
    pub(crate) prefixes: u64,
    /// What it says beside that is not used, such as decisions about a country.
    pub(crate) ignored: u64,
    /// What is no fault, and good to know.
    pub(crate) note: Option<String>,
    /// RFC 3339, UTC; null before the first.
    pub(crate) last_success: Option<String>,
    /// Reads that failed since the daemon started.
    pub(crate) failures: u64,
    /// Null while it can be read. Until then, what it said before stays.
    pub(crate) fault: Option<String>,
}

impl FeedsStatus {
    /// Names of the feeds whose bits are set.
    pub(crate) fn names(&self, feeds: u32) -> Vec<&str> {
        let all = self.feeds.iter().filter(|feed| feeds & bit(feed.slot) != 0);
        all.map(|feed| &feed.name[..]).collect()
    }
}

pub(crate) fn bit(slot: u32) -> u32 {
    1_u32.checked_shl(slot).unwrap_or_default()
}

/// The file of one namespace, until a reboot.
#[derive(Clone, Debug)]
pub(crate) struct FeedsFile(PathBuf);

impl FeedsFile {
    pub(crate) fn of_this_namespace() -> io::Result<Self> {
        run_directory::of_this_namespace("feeds.json").map(Self)
    }

    pub(crate) fn write(&self, status: &FeedsStatus) -> Result<(), FileError> {
        publish(&self.0, status)
    }

    /// Empty if there are no feeds.
    pub(crate) fn read(&self) -> FeedsStatus {
        let bytes = fs::read(&self.0).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

/// What is known about the feeds of this namespace.
pub(crate) fn feeds_status() -> FeedsStatus {
    FeedsFile::of_this_namespace().map(|file| file.read()).unwrap_or_default()
}
