//! Files that outlive the daemon, and those that tell commands what it knows.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use log::warn;
use serde::Serialize;
use thiserror::Error;

/// Longer files are damaged.
pub(crate) const LONGEST: u64 = 1 << 22;

#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub(crate) struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

/// Writes what a command may read at any time, as a whole: JSON, until a reboot.
pub(crate) fn publish(path: &Path, told: &impl Serialize) -> Result<(), FileError> {
    let new = path.with_extension("new");
    let written = serde_json::to_vec(told)
        .map_err(Into::into)
        .and_then(|bytes| fs::write(&new, bytes))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map_err(FileError::new("write", path))
}

/// Reads a file, or takes the default if there is none. A damaged file is moved to `aside`, with a
/// warning that names the `effect`.
pub(crate) fn load<T: Default, E: Display>(
    path: &Path,
    aside: &Path,
    effect: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<T, FileError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        read => read.map_err(FileError::new("read", path))?,
    };
    parse(&bytes).or_else(|damage| {
        fs::rename(path, aside).map_err(FileError::new("move aside", path))?;
        warn!(
            "{} is damaged ({damage}) and was moved to {}; {effect}",
            path.display(),
            aside.display()
        );
        Ok(T::default())
    })
}
