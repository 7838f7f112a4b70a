//! Settings of the host that a lab must change, and how they come back.
//!
//! A changed value's original lies in a file under `/run` until it is restored, so that the next
//! lab can put right what a killed one left.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const DIRECTORY: &str = "/run/ctguard-lab";

/// A sysctl of the host, set for a while: restored when dropped.
#[derive(Debug)]
pub struct HostSysctl {
    key: String,
    original: String,
}

impl HostSysctl {
    /// Sets `key` (as in `net.netfilter.nf_conntrack_max`) to `value`.
    pub fn set(key: &str, value: &str) -> Result<Self> {
        let original = read(key)?;
        fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}"))?;
        fs::write(record(key), &original)
            .with_context(|| format!("cannot note the value of {key}"))?;
        let changed = Self { key: key.to_owned(), original };
        write(key, value)?;
        Ok(changed)
    }
}

impl Drop for HostSysctl {
    fn drop(&mut self) {
        restore(&self.key, &self.original);
    }
}

/// Restores what labs that were killed had changed. Call it with the lab's lock held.
pub fn restore_orphans() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for entry in entries.flatten() {
        let key = entry.file_name().to_string_lossy().into_owned();
        if let Ok(original) = fs::read_to_string(entry.path()) {
            restore(&key, &original);
        }
    }
}

/// Where the kernel keeps `key`.
#[must_use]
pub fn path(key: &str) -> PathBuf {
    // Interface names have dots of their own only on VLANs, which the lab has not.
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

/// The value of `key` in this thread's namespace.
pub fn read(key: &str) -> Result<String> {
    let text = fs::read_to_string(path(key)).with_context(|| format!("cannot read {key}"))?;
    Ok(text.trim().to_owned())
}

fn write(key: &str, value: &str) -> Result<()> {
    fs::write(path(key), value).with_context(|| format!("cannot set {key} to {value}"))
}

fn restore(key: &str, original: &str) {
    match write(key, original) {
        Ok(()) => {
            let _ = fs::remove_file(record(key));
            let _ = fs::remove_dir(DIRECTORY);
        }
        Err(error) => eprintln!("ctguard-lab: {error:#} (it was {original} before the lab)"),
    }
}

fn record(key: &str) -> PathBuf {
    Path::new(DIRECTORY).join(key)
}
