//! Settings of the host that a lab must change, and how they come back.
//!
//! A changed value's original lies in a file under `/run` until it is restored, so that the next
//! lab can put right what a killed one left.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const DIRECTORY: &str = "/run/ctguard-lab";

/// A sysctl of the host, set for a while: restored when dropped.
#[derive(Debug)]
pub struct HostSysctl {
    key: String,
    original: String,
    recorded: bool,
}

impl HostSysctl {
    /// Sets `key` (as in `net.netfilter.nf_conntrack_max`) to `value`.
    pub fn set(key: &str, value: &str) -> Result<Self> {
        let original = read(key)?;
        let recorded =
            note(key, &original).with_context(|| format!("cannot note the value of {key}"))?;
        let changed = Self { key: key.to_owned(), original, recorded };
        write(key, value)?;
        Ok(changed)
    }
}

impl Drop for HostSysctl {
    fn drop(&mut self) {
        if self.recorded {
            restore(&self.key, &self.original);
        } else {
            put_back(&self.key, &self.original);
        }
    }
}

/// Notes the value of `key`; false where an older one is noted already, by a change that this one
/// is within or by a lab that was killed: that one is the host's.
fn note(key: &str, original: &str) -> io::Result<bool> {
    fs::create_dir_all(DIRECTORY)?;
    match File::create_new(record(key)) {
        Ok(mut record) => record.write_all(original.as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
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
    if put_back(key, original) {
        let _ = fs::remove_file(record(key));
        let _ = fs::remove_dir(DIRECTORY);
    }
}

fn put_back(key: &str, original: &str) -> bool {
    let put = write(key, original);
    if let Err(error) = &put {
        eprintln!("ctguard-lab: {error:#} (it was {original} before the lab)");
    }
    put.is_ok()
}

fn record(key: &str) -> PathBuf {
    Path::new(DIRECTORY).join(key)
}
