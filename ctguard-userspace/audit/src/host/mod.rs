//! A machine as its files tell it, below a root: this one's, or a copy of another's.
//!
//! Everything here reads. `net.netfilter.nf_conntrack_max` and the like are files of
//! `/proc/sys`; what they become at the next boot is in files that others wrote.

mod boot;
mod conf;
mod kernel_log;
mod listeners;
mod memory;
mod namespaces;
mod processes;
mod stack;
mod statistics;
mod table;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

pub use boot::Boot;
pub use conf::{Assignment, Readers, SysctlFiles};
pub use kernel_log::LogCounts;
pub use listeners::{LISTENERS, Listener};
pub use memory::{EntrySize, Memory};
pub use namespaces::{OtherTable, OtherTables, may_be_there, most_entries};
pub use processes::Process;
pub use stack::{BACKLOG_FULL, NETSTAT, SOFTNET, SQUEEZED};
pub use statistics::{Losses, Lost, STATISTICS, Statistics};
pub use table::{
    BUCKETS, COUNT, EXPECT_MAX, HASHSIZE, MAX, TableNumbers, is_size_ours, sets_buckets_by_sysctl,
    setting_path,
};

/// The tables that iptables has loaded, and ip6tables.
pub const LEGACY_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// A machine's files.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// A file that is there, or should be, and cannot be read.
#[derive(Debug, Error)]
#[error("{place}: {reason}")]
pub struct Unread {
    /// Its path on the machine.
    pub place: String,
    /// Why not.
    pub reason: String,
}

impl Unread {
    pub fn new(place: impl Into<String>, reason: &(impl ToString + ?Sized)) -> Self {
        Self { place: place.into(), reason: reason.to_string() }
    }
}

impl Host {
    /// The machine whose files are below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether it is the one that this process runs on.
    pub fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the machine is found here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn is_there(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A file's text; none where there is no such file.
    pub fn text(&self, path: &str) -> Result<Option<String>, Unread> {
        match fs::read(self.path(path)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Unread::new(path, &error)),
        }
    }

    /// A file that is one number.
    pub fn number(&self, path: &str) -> Result<Option<u64>, Unread> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        let text = text.trim();
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Unread::new(path, &format_args!("{text:?} is no number"))),
        }
    }

    /// Whether its owner may write a file, whoever we are.
    pub fn is_writable(&self, path: &str) -> bool {
        let file = self.path(path).metadata();
        file.is_ok_and(|file| file.permissions().mode() & OWNER_WRITES != 0)
    }

    /// What a directory holds, sorted; nothing where there is none.
    pub fn names(&self, directory: &str) -> Result<Vec<String>, Unread> {
        let read = match fs::read_dir(self.path(directory)) {
            Ok(read) => read,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(Unread::new(directory, &error)),
        };
        let mut names = Vec::new();
        for entry in read {
            let entry = entry.map_err(|error| Unread::new(directory, &error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// How long ago it was booted; nothing where it does not tell.
    pub fn uptime(&self) -> Result<Duration, Unread> {
        let text = self.text("/proc/uptime")?.unwrap_or_default();
        let seconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
        Ok(Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default())
    }

    /// Whether it forwards packets for others.
    pub fn forwards(&self) -> Result<bool, Unread> {
        Ok(self.sysctl("net.ipv4.ip_forward")?.as_deref() == Some("1"))
    }

    /// Whether iptables, not as a front of nftables, has a table for NAT, of either family.
    pub fn has_legacy_nat(&self) -> Result<bool, Unread> {
        for list in LEGACY_TABLES {
            let tables = self.text(list)?.unwrap_or_default();
            if tables.lines().any(|table| table.trim() == "nat") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the modules of its kernel lie.
    pub fn modules(&self) -> Result<String, Unread> {
        let release = self.text("/proc/sys/kernel/osrelease")?.unwrap_or_default();
        Ok(format!("/lib/modules/{}", release.trim()))
    }

    /// Whether a module is part of its kernel.
    pub fn is_built_in(&self, module: &str) -> Result<bool, Unread> {
        let list = self.text(&format!("{}/modules.builtin", self.modules()?))?;
        Ok(list.is_some_and(|list| list.contains(&format!("/{module}.ko"))))
    }

    /// The files of these directories by name, each from the first directory that has one of its
    /// name: how systemd, udev and modprobe read theirs.
    pub fn drop_ins(&self, directories: &[&str], ending: &str) -> Result<Vec<String>, Unread> {
        let mut files = BTreeMap::new();
        for directory in directories {
            for name in self.names(directory)? {
                if name.ends_with(ending) {
                    files.entry(name).or_insert_with_key(|name| format!("{directory}/{name}"));
                }
            }
        }
        Ok(files.into_values().collect())
    }

    /// A sysctl's value now, its words separated by single spaces.
    pub fn sysctl(&self, key: &str) -> Result<Option<String>, Unread> {
        let text = self.text(&sysctl_path(key))?;
        Ok(text.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")))
    }
}

const OWNER_WRITES: u32 = 0o200;

/// The file of a sysctl, by its name with dots.
pub fn sysctl_path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
pub mod testing {
    //! A machine that a test writes.

    use super::*;

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
}

#[cfg(test)]
mod tests {
    use super::testing::Fake;

    #[test]
    fn what_is_absent_is_told_from_what_cannot_be_read() {
        let fake = Fake::new("host-absent", &[("/proc/sys/a/b", "12\n"), ("/etc/file", "x")]);
        assert_eq!(fake.host.number("/proc/sys/a/b").unwrap(), Some(12));
        assert_eq!(fake.host.number("/proc/sys/a/c").unwrap(), None);
        assert_eq!(fake.host.number("/etc/file/below").unwrap(), None);
        let error = fake.host.number("/etc/file").unwrap_err().to_string();
        assert_eq!(error, "/etc/file: \"x\" is no number");
        assert!(fake.host.text("/proc/sys/a").is_err());
    }

    #[test]
    fn a_sysctl_of_several_words_is_one_line() {
        let fake = Fake::new("host-words", &[("/proc/sys/net/ipv4/r", "32768\t60999\n")]);
        assert_eq!(fake.host.sysctl("net.ipv4.r").unwrap().as_deref(), Some("32768 60999"));
        assert!(!fake.host.is_this());
    }
}
