//! What sysctl files set, and who applies them at boot.
//!
//! systemd-sysctl applies every `*.conf` of `sysctl.d`, sorted by name across directories. Of two files
//! with one name, the first directory wins; of two assignments, the later one (sysctl.d(5)). It reads
//! `/etc/sysctl.conf` only through a link in `sysctl.d`, as Debian had until 12; `sysctl --system` of
//! procps reads it last. `ufw` applies a file of its own.

use std::collections::BTreeSet;

use serde::Serialize;

use super::machine::{Host, TOPS, Unread};

const SYSCTL_CONF: &str = "/etc/sysctl.conf";
const UFW: &str = "/etc/ufw/sysctl.conf";

/// One line `key = value`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assignment {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// With dots between its parts.
    pub key: String,
    /// Its words, separated by single spaces.
    pub value: String,
}

impl Assignment {
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

/// Who applies a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// systemd-sysctl, or an init script that does the same.
    Boot,
    /// Only `sysctl -p` and `sysctl --system`.
    ByHand,
    /// ufw, when it starts.
    Ufw,
}

#[derive(Clone, Debug, Default)]
pub struct SysctlFiles {
    /// In the order in which they take effect.
    pub assignments: Vec<(Assignment, Readers)>,
    pub sysctl_conf_comments: usize,
}

impl SysctlFiles {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let mut read = Self::default();
        let mut linked = false;
        for file in &host.drop_ins(&TOPS, "sysctl.d", ".conf")? {
            let links = host.is_same_file(file, SYSCTL_CONF);
            linked |= links;
            read.add(host, if links { SYSCTL_CONF } else { file }, Readers::Boot)?;
        }
        if !linked {
            let by_systemd = host.is_there("/run/systemd/system");
            let readers = if by_systemd { Readers::ByHand } else { Readers::Boot };
            read.add(host, SYSCTL_CONF, readers)?;
        }
        read.add(host, UFW, Readers::Ufw)?;
        let text = host.text(SYSCTL_CONF)?.unwrap_or_default();
        read.sysctl_conf_comments = text.lines().filter(|line| is_comment(line.trim())).count();
        Ok(read)
    }

    fn add(&mut self, host: &Host, file: &str, readers: Readers) -> Result<(), Unread> {
        for (line, text) in (1..).zip(host.text(file)?.unwrap_or_default().lines()) {
            self.assignments.extend(assignment(file, line, text).map(|found| (found, readers)));
        }
        Ok(())
    }

    /// The assignment of `key` that wins at boot.
    pub fn at_boot(&self, key: &str) -> Option<&Assignment> {
        self.at_boot_without("", key)
    }

    /// The one that would win without this file.
    pub fn at_boot_without(&self, file: &str, key: &str) -> Option<&Assignment> {
        let at_boot = self.assignments.iter().filter(|(_, readers)| *readers != Readers::ByHand);
        let mut found = at_boot.map(|(found, _)| found).filter(|found| found.file != file);
        found.rfind(|found| found.key == key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.assignments.iter().map(|(assignment, _)| assignment.key.as_str());
        keys.collect::<BTreeSet<_>>().into_iter()
    }
}

fn is_comment(line: &str) -> bool {
    line.starts_with(['#', ';'])
}

fn assignment(file: &str, line: usize, text: &str) -> Option<Assignment> {
    let text = text.trim();
    if is_comment(text) {
        return None;
    }
    let (key, value) = text.split_once('=')?;
    // A leading minus sign: ignore errors.
    let key = dotted(key.trim().trim_start_matches('-').trim());
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Assignment { file: file.to_owned(), line, key, value })
}

/// A key with dots between its parts. The first of `.` and `/` is the separator, and the other one
/// stands for a character of a part (sysctl.d(5)).
pub(super) fn dotted(key: &str) -> String {
    let swap = |separator| match separator {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    match key.find(['.', '/']).and_then(|at| key.get(at..=at)) {
        Some("/") => key.chars().map(swap).collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{super::testing::Fake, *};

    #[test]
    fn keys_of_both_notations_are_one() {
        assert_eq!(dotted("net/netfilter/nf_conntrack_max"), "net.netfilter.nf_conntrack_max");
        assert_eq!(dotted("net.netfilter.nf_conntrack_max"), "net.netfilter.nf_conntrack_max");
        assert_eq!(dotted("net/ipv4/conf/eth0.5/rp_filter"), "net.ipv4.conf.eth0/5.rp_filter");
    }

    /// Fails when a file is read that another of its name hides, or in another order than by name.
    #[test]
    fn the_last_file_by_name_counts_and_etc_hides_what_the_distribution_ships() {
        let fake = Fake::new(
            "conf-order",
            &[
                ("/usr/lib/sysctl.d/50-a.conf", "net.x = 1\nnet.y=1\n"),
                ("/etc/sysctl.d/50-a.conf", "# nothing\n"),
                ("/etc/sysctl.d/90-b.conf", "; a comment\n-net/y = 3  4\nno assignment\n"),
                ("/run/sysctl.d/99-c.conf", "net.z=5"),
                ("/etc/sysctl.d/README", "net.q=1"),
            ],
        );
        let files = SysctlFiles::read(&fake.host).unwrap();
        assert_eq!(files.at_boot("net.x"), None);
        assert_eq!(files.at_boot("net.q"), None);
        let found = files.at_boot("net.y").unwrap();
        assert_eq!((found.value.as_str(), found.line), ("3 4", 2));
        assert_eq!(found.file, "/etc/sysctl.d/90-b.conf");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["net.y", "net.z"]);
    }

    #[test]
    fn sysctl_conf_counts_at_boot_only_where_it_is_linked() {
        let fake = Fake::new(
            "conf-link",
            &[("/etc/sysctl.conf", "net.x=1\n#c\n"), ("/run/systemd/system/x", "")],
        );
        let files = SysctlFiles::read(&fake.host).unwrap();
        assert_eq!(files.at_boot("net.x"), None);
        assert_eq!(files.assignments[0].1, Readers::ByHand);
        assert_eq!(files.sysctl_conf_comments, 1);
        fake.write("/etc/sysctl.d/10.conf", "net.x=2");
        symlink("../sysctl.conf", fake.host.path("/etc/sysctl.d/99-sysctl.conf")).unwrap();
        let files = SysctlFiles::read(&fake.host).unwrap();
        let found = files.at_boot("net.x").unwrap();
        assert_eq!((found.file.as_str(), found.value.as_str()), ("/etc/sysctl.conf", "1"));
    }
}
