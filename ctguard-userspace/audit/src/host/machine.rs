//! A machine's files, below a root.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    time::Duration,
};

use thiserror::Error;

use super::reader::{DISK, Place, Root};
use ctguard_kernel::privileges::remedy;

/// The tables that iptables has loaded, and ip6tables.
pub const LEGACY_TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
const OWNER_WRITES: u32 = 0o200;
const OWNER_RUNS: u32 = 0o100;
/// The most bytes that the configuration files of one kind have together.
const DROP_INS: u64 = 8 << 20;

/// Where packages and people put configuration; the first has priority.
pub(super) const TOPS: [&str; 5] = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"];

#[derive(Clone, Debug)]
pub struct Host {
    root: Root,
}

/// A file that exists, or should, and cannot be read.
#[derive(Clone, Debug, Error)]
#[error("{place}: {reason}")]
pub struct Unread {
    pub place: String,
    pub reason: String,
    /// Whether somebody with more rights could read it.
    pub is_not_permitted: bool,
}

impl Unread {
    pub fn new(place: impl Into<String>, reason: &(impl ToString + ?Sized)) -> Self {
        Self { place: place.into(), reason: reason.to_string(), is_not_permitted: false }
    }

    /// `capability` is what gives the permission.
    pub fn failed(place: &str, error: &io::Error, capability: &str) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            let remedy = remedy(capability);
            let refused = Self::new(place, &format_args!("not permitted; {remedy}"));
            return Self { is_not_permitted: true, ..refused };
        }
        Self::new(place, error)
    }
}

impl Host {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: Root::new(root.into()) }
    }

    /// The files that a process sees, such as those of its container; none in a copy of a machine.
    pub fn seen_by(&self, process: u32) -> Option<Self> {
        // The root of a process is a link that the kernel follows to the directory itself. Below it, links
        // are resolved in it as below any root.
        self.is_this().then(|| Self::at(format!("/proc/{process}/root")))
    }

    /// Whether it is the one that this process runs on.
    pub fn is_this(&self) -> bool {
        self.root.is_this_machine()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path(path)
    }

    pub fn is_there(&self, path: &str) -> bool {
        self.root.metadata(path).is_ok()
    }

    /// A file's text; none where there is no such file.
    pub fn text(&self, path: &str) -> Result<Option<String>, Unread> {
        if_there(path, self.root.text(path))
    }

    /// A file to read from its beginning; none where there is no such file.
    pub(super) fn file(&self, path: &str) -> Result<Option<File>, Unread> {
        if_there(path, self.root.file(path))
    }

    /// Writes over a file.
    pub fn write(&self, path: &str, text: &str) -> io::Result<()> {
        self.root.write(path, text)
    }

    /// Where to make, replace or remove a file; nothing leads out of the root.
    pub fn place(&self, path: &str) -> io::Result<Place> {
        self.root.place(path)
    }

    /// Opens a directory, which is made if it is missing.
    pub fn directory(&self, path: &str) -> io::Result<File> {
        self.root.directory(path)
    }

    pub fn number(&self, path: &str) -> Result<Option<u64>, Unread> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| {
            let start: String = text.trim().chars().take(80).collect();
            Unread::new(path, &format_args!("{start:?} is not a number"))
        })
    }

    /// Whether the file's owner may write it, whoever we are.
    pub fn is_writable(&self, path: &str) -> bool {
        let file = self.root.metadata(path);
        file.is_ok_and(|file| file.permissions().mode() & OWNER_WRITES != 0)
    }

    pub(super) fn is_executable(&self, path: &str) -> bool {
        self.root.metadata(path).is_ok_and(|file| file.permissions().mode() & OWNER_RUNS != 0)
    }

    pub(super) fn is_same_file(&self, one: &str, other: &str) -> bool {
        let id = |path| self.root.metadata(path).ok().map(|file| (file.dev(), file.ino()));
        id(one).is_some_and(|one| Some(one) == id(other))
    }

    /// Names in a directory, sorted; none where there is no such directory.
    pub fn names(&self, directory: &str) -> Result<Vec<String>, Unread> {
        let mut names = if_there(directory, self.root.names(directory))?.unwrap_or_default();
        names.sort_unstable();
        Ok(names)
    }

    pub fn network_namespace(&self, process: &str) -> Option<u64> {
        let link = self.root.link(&format!("/proc/{process}/ns/net")).ok()?;
        link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
    }

    /// Time since boot; zero where it is unknown.
    pub fn uptime(&self) -> Result<Duration, Unread> {
        let text = self.text("/proc/uptime")?.unwrap_or_default();
        let seconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
        Ok(Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default())
    }

    /// The setting by which this machine forwards packets: for all of a family, or for two interfaces
    /// or more; none if it forwards nothing.
    pub fn forwards(&self) -> Result<Option<String>, Unread> {
        let is_on = |key: &str| Ok(self.sysctl(key)?.is_some_and(|value| value != "0"));
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            if is_on(key)? {
                return Ok(Some(sysctl_path(key)));
            }
        }
        for family in ["ipv4", "ipv6"] {
            let directory = format!("/proc/sys/net/{family}/conf");
            let mut found = Vec::new();
            for name in self.names(&directory)? {
                let path = format!("{directory}/{name}/forwarding");
                if ["all", "default", "lo"].contains(&name.as_str()) {
                    continue;
                }
                if self.text(&path)?.is_some_and(|text| text.trim() != "0") {
                    found.push(path);
                }
            }
            if let [first, _, ..] = &found[..] {
                return Ok(Some(first.clone()));
            }
        }
        Ok(None)
    }

    pub fn has_legacy_nat(&self) -> Result<bool, Unread> {
        self.has_legacy("nat")
    }

    /// Whether iptables or ip6tables has this table, without nftables.
    pub fn has_legacy(&self, table: &str) -> Result<bool, Unread> {
        let tables = LEGACY_TABLES.map(|list| self.text(list));
        let has_it = |tables: String| tables.lines().any(|name| name.trim() == table);
        tables.into_iter().try_fold(false, |found, tables| Ok(found || tables?.is_some_and(has_it)))
    }

    /// The kernel's version and patch level; none where it cannot be told.
    pub fn release(&self) -> Result<Option<(u32, u32)>, Unread> {
        let release = self.text("/proc/sys/kernel/osrelease")?.unwrap_or_default();
        let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(str::parse);
        Ok(numbers.next().and_then(Result::ok).zip(numbers.next().and_then(Result::ok)))
    }

    /// The number behind the patch level, of a stable kernel; 0 where there is none.
    pub fn sublevel(&self) -> Result<u32, Unread> {
        let release = self.text("/proc/sys/kernel/osrelease")?.unwrap_or_default();
        let third = release.split(|it: char| !it.is_ascii_digit()).nth(2);
        Ok(third.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    pub fn modules(&self) -> Result<String, Unread> {
        let release = self.text("/proc/sys/kernel/osrelease")?.unwrap_or_default();
        Ok(format!("/lib/modules/{}", release.trim()))
    }

    pub fn is_built_in(&self, module: &str) -> Result<bool, Unread> {
        Ok(self.built_in()?.is_some_and(|list| list.contains(&format!("/{module}.ko"))))
    }

    /// The modules that are part of the kernel; none where nothing tells.
    pub fn built_in(&self) -> Result<Option<String>, Unread> {
        self.text(&format!("{}/modules.builtin", self.modules()?))
    }

    /// The files of these directories by name, each from the first directory that has one of its
    /// name, as systemd, udev and modprobe read theirs.
    pub fn drop_ins(
        &self,
        tops: &[&str],
        below: &str,
        ending: &str,
    ) -> Result<Vec<String>, Unread> {
        let mut files = BTreeMap::new();
        for directory in tops.iter().map(|top| format!("{top}/{below}")) {
            for name in self.names(&directory)?.into_iter().filter(|it| it.ends_with(ending)) {
                files.entry(name).or_insert_with_key(|name| format!("{directory}/{name}"));
            }
        }
        let length = |file: &String| self.root.metadata(file).map_or(0, |file| file.len());
        // A file that is too long by itself is not read anyway.
        let lengths = files.values().map(length).filter(|&length| length <= DISK);
        if lengths.sum::<u64>() > DROP_INS {
            let reason = format!("longer than {} MiB together, and not read", DROP_INS >> 20);
            return Err(Unread::new(format!("{below}/*{ending}"), &reason));
        }
        Ok(files.into_values().collect())
    }

    /// A sysctl's value now, its words separated by single spaces.
    pub fn sysctl(&self, key: &str) -> Result<Option<String>, Unread> {
        let text = self.text(&sysctl_path(key))?;
        Ok(text.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")))
    }
}

pub fn sysctl_path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn if_there<T>(path: &str, read: io::Result<T>) -> Result<Option<T>, Unread> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(Unread::failed(path, &error, "CAP_DAC_OVERRIDE")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::testing::Fake, Host};

    #[test]
    fn what_is_absent_is_told_from_what_cannot_be_read() {
        let fake = Fake::new("host-absent", &[("/proc/sys/a/b", "12\n"), ("/etc/file", "x")]);
        assert_eq!(fake.host.number("/proc/sys/a/b").unwrap(), Some(12));
        assert_eq!(fake.host.number("/proc/sys/a/c").unwrap(), None);
        assert_eq!(fake.host.number("/etc/file/below").unwrap(), None);
        let error = fake.host.number("/etc/file").unwrap_err().to_string();
        assert_eq!(error, "/etc/file: \"x\" is not a number");
        assert!(fake.host.text("/proc/sys/a").is_err());
    }

    /// Fails when a machine's files, each short enough, fill the memory of who examines it.
    #[test]
    fn configuration_files_that_are_too_long_together_are_not_read() {
        let fake = Fake::new("host-drop-ins", &[("/etc/sysctl.d/0.conf", "a=b\n")]);
        let drop_ins = || fake.host.drop_ins(&["/etc"], "sysctl.d", ".conf");
        assert_eq!(drop_ins().unwrap().len(), 1);
        for number in 1..=3 {
            let path = fake.host.path(&format!("/etc/sysctl.d/{number}.conf"));
            fs::File::create(path).unwrap().set_len(3 << 20).unwrap();
        }
        let error = drop_ins().unwrap_err().to_string();
        assert_eq!(error, "sysctl.d/*.conf: longer than 8 MiB together, and not read");
    }

    /// Fails when the root of a process is refused, as a link of this kind is below a root.
    #[test]
    fn what_a_process_sees_is_read_below_its_own_root() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "seen").unwrap();
        let path = file.path().to_str().unwrap();
        let this = Host::at("/");
        let seen = this.seen_by(std::process::id()).unwrap();
        assert_eq!(seen.text(path).unwrap().as_deref(), Some("seen"));
        assert!(this.text(&format!("/proc/self/root{path}")).is_err());
        assert!(Fake::new("host-seen", &[]).host.seen_by(1).is_none());
    }

    #[test]
    fn a_sysctl_of_several_words_is_one_line() {
        let fake = Fake::new("host-words", &[("/proc/sys/net/ipv4/r", "32768\t60999\n")]);
        assert_eq!(fake.host.sysctl("net.ipv4.r").unwrap().as_deref(), Some("32768 60999"));
        assert!(!fake.host.is_this());
    }
}
