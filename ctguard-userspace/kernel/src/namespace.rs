//! The network namespace that this thread is in.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::PathBuf};

/// Its inode number, which no other has as long as it is there.
pub fn number() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// A plain file of it, `name` at its end.
///
/// Not beside the pins, for a bpffs takes no plain file. What `/run` forgets, the kernel has
/// forgotten too.
pub fn run_file(name: &str) -> io::Result<PathBuf> {
    Ok(PathBuf::from(format!("/run/ctguard.{}.{name}", number()?)))
}
