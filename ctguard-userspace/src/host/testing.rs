//! A machine that a test writes.

use std::fs;

use super::machine::Host;
use crate::testing::Directory;

pub(crate) struct Fake {
    pub(crate) host: Host,
    // Dropped last.
    _directory: Directory,
}

impl Fake {
    /// A machine with these files.
    pub(crate) fn new(test: &str, files: &[(&str, &str)]) -> Self {
        let directory = Directory::make(test);
        let host = Host::at(&*directory);
        let fake = Self { host, _directory: directory };
        for (path, text) in files {
            fake.write(path, text);
        }
        fake
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.host.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
