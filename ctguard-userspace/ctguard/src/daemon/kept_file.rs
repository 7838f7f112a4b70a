//! A file in the state directory that is written on a thread: ticks do not wait for a disk.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

use log::warn;

use super::{background::Background, state_file::lasting_name};
use crate::{
    files::{FileError, load},
    sentence::sentence,
};
use ctguard_kernel::durable::replace;

#[derive(Debug, Default)]
pub(super) struct KeptFile {
    path: Option<PathBuf>,
    writing: Option<Background<Result<(), FileError>>>,
}

impl KeptFile {
    /// `KIND-NAME.EXTENSION`, with NAME as in the file of the regulars. Without a directory or a name
    /// nothing is written.
    pub(super) fn of_this_namespace(directory: Option<&Path>, kind: &str, extension: &str) -> Self {
        let path = directory.and_then(|directory| {
            lasting_name().map(|name| directory.join(format!("{kind}-{name}.{extension}")))
        });
        Self { path, writing: None }
    }

    #[cfg(test)]
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), writing: None }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What a former daemon wrote; nothing, after a warning that names the `effect`, if it is lost.
    pub(super) fn read<T: Default, E: Display>(
        &self,
        effect: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> T {
        self.path().map_or_else(T::default, |path| {
            load(path, &path.with_extension("damaged"), effect, parse).unwrap_or_else(|error| {
                warn!("{effect}: {}", sentence(&error));
                T::default()
            })
        })
    }

    /// Two at once would write the same file.
    pub(super) fn is_being_written(&self) -> bool {
        self.writing.is_some()
    }

    /// Begins to write all of it; it must not be being written.
    pub(super) fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let write = move || {
            replace(&path, &path.with_extension("new"), &bytes)
                .map_err(FileError::new("write", &path))
        };
        self.writing = Some(Background::start("ctguard-save", write)?);
        Ok(())
    }

    /// How it went, once it is written.
    pub(super) fn take_written(&mut self) -> Option<Result<(), FileError>> {
        Background::take_finished(&mut self.writing)
    }

    /// The same, after waiting for it.
    pub(super) fn wait(&mut self) -> Option<Result<(), FileError>> {
        self.writing.take().map(Background::wait)
    }
}
