//! What tests of several modules need.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

/// A directory of the test's own, removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn make(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ctguard-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
