//! A machine that a test writes.

use std::{fs, io, process::Command};

use super::machine::Host;

pub struct Fake {
    pub host: Host,
    // Dropped last.
    _directory: tempfile::TempDir,
}

impl Fake {
    /// A machine with these files.
    pub fn new(_test: &str, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::at(directory.path());
        let fake = Self { host, _directory: directory };
        for (path, text) in files {
            fake.write(path, text);
        }
        fake
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.host.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// What another program writes; none, and a word about it, where this machine does not have it.
pub fn output(command: &mut Command, test: &str) -> Option<String> {
    match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "{test} may not be skipped in CI");
            println!("skipped: {test}: needs the program {}", command.get_program().display());
            None
        }
        output => Some(String::from_utf8(output.unwrap().stdout).unwrap()),
    }
}
