//! The network namespace that this thread is in.

use std::{fs, io, os::unix::fs::MetadataExt as _};

/// Its inode number, unique while the namespace exists.
pub fn number() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}
