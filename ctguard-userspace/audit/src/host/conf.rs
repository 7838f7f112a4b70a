//! What sysctl files say, and who reads them at boot.
//!
//! systemd-sysctl takes every `*.conf` of `sysctl.d`, sorted by name whatever its directory; of two
//! files of one name the one in the directory named first counts, and of two assignments the later
//! (sysctl.d(5)). `/etc/sysctl.conf` is read only where a file of `sysctl.d` is a link to it, as
//! Debian had until 12; `sysctl --system` of procps reads it last. `ufw` applies a file of its own.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Host, Unread};

/// From the one that counts most.
const DIRECTORIES: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];
const SYSCTL_CONF: &str = "/etc/sysctl.conf";
const UFW: &str = "/etc/ufw/sysctl.conf";

/// One line `key = value`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assignment {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// With dots between its parts.
    pub key: String,
    /// Its words, separated by single spaces.
    pub value: String,
}

/// Who reads a file at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// systemd-sysctl, or an init script that does the same.
    Boot,
    /// Nobody but `sysctl -p` and `sysctl --system`.
    ByHand,
    /// ufw, when it starts.
    Ufw,
}

/// All assignments, in the order in which they take effect.
#[derive(Clone, Debug, Default)]
pub struct SysctlFiles {
    pub assignments: Vec<(Assignment, Readers)>,
    /// Lines of `/etc/sysctl.conf` that are comments.
    pub sysctl_conf_comments: usize,
}

impl SysctlFiles {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let mut read = Self::default();
        let (mut linked, sysctl_conf) = (false, host.path(SYSCTL_CONF).canonicalize().ok());
        for file in &host.drop_ins(&DIRECTORIES, ".conf")? {
            let links = sysctl_conf.is_some() && host.path(file).canonicalize().ok() == sysctl_conf;
            linked |= links;
            let named = if links { SYSCTL_CONF } else { file };
            read.add(host, named, Readers::Boot)?;
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
        // A link to /dev/null, or to nowhere, says nothing.
        let text = host.text(file)?.unwrap_or_default();
        let lines = text.lines().enumerate();
        self.assignments.extend(
            lines.filter_map(|(index, line)| Some((assignment(file, index + 1, line)?, readers))),
        );
        Ok(())
    }

    /// The assignment of `key` that counts at boot.
    pub fn at_boot(&self, key: &str) -> Option<&Assignment> {
        self.at_boot_without("", key)
    }

    /// The one that would count if this file were not there.
    pub fn at_boot_without(&self, file: &str, key: &str) -> Option<&Assignment> {
        let mut found = self
            .assignments
            .iter()
            .filter(|(assignment, readers)| *readers != Readers::ByHand && assignment.file != file);
        found.rfind(|(assignment, _)| assignment.key == key).map(|(assignment, _)| assignment)
    }

    /// Each key that some file assigns, once.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys: BTreeSet<_> =
            self.assignments.iter().map(|(assignment, _)| assignment.key.as_str()).collect();
        keys.into_iter()
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
    // A minus sign in front: errors are nobody's business.
    let key = dotted(key.trim().trim_start_matches('-').trim());
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Assignment { file: file.to_owned(), line, key, value })
}

/// A key with dots between its parts. Whichever of `.` and `/` comes first separates them, and the
/// other stands for itself the other way round (sysctl.d(5)).
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
