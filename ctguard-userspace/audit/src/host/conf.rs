//! What sysctl files set, and who applies them at boot.
//!
//! systemd-sysctl applies every `*.conf` of `sysctl.d`, sorted by name across directories. Of two files
//! with one name, the first directory wins; of two assignments, the later one, except that one which
//! repeats a value stays where it was (sysctl.d(5), `src/sysctl/sysctl.c`). A key with wildcards sets
//! what no line names, and what no line excludes by a minus sign. systemd reads `/etc/sysctl.conf` only
//! through a link in `sysctl.d`, as Debian had until 12; `sysctl --system` of procps and procd read it
//! last. ufw, while it is enabled, applies a file of its own when it starts. The kernel sets `sysctl.KEY=`
//! of its command line before any of them.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    boot::Init,
    machine::{Host, TOPS, Unread, sysctl_path},
    modprobe::{COMMAND_LINE, CONNTRACK, Modprobe},
    table::{MAX, is_size_ours},
};

const SYSCTL_CONF: &str = "/etc/sysctl.conf";
const UFW_ENABLED: &str = "/etc/ufw/ufw.conf";
const UFW_DEFAULTS: &str = "/etc/default/ufw";
const UFW: &str = "/etc/ufw/sysctl.conf";
/// The other name of the maximum.
const OLD_MAX: &str = "net.nf_conntrack_max";
const KEYS: &str = "net.netfilter.";

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

    /// The number that the kernel takes: the first word, in C's notation; none where it refuses the
    /// line (`proc_get_long`, `kernel/sysctl.c`).
    pub fn number(&self) -> Option<u64> {
        number(self.value.split(' ').next()?)
    }
}

/// A number as C writes it: with `0x` hexadecimal, with another `0` octal.
pub fn number(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    let is_octal = lower.len() > 1 && lower.starts_with('0');
    u64::from_str_radix(&lower, if is_octal { 8 } else { 10 }).ok()
}

/// Who applies a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The kernel, before it starts init.
    Kernel,
    /// systemd-sysctl, or an init script that does the same.
    Boot,
    /// Only `sysctl -p` and `sysctl --system`.
    ByHand,
    /// `sysctl --system`, which a line of `modprobe.d` runs when conntrack is loaded.
    Load,
    /// ufw, when it starts.
    Ufw,
}

#[derive(Clone, Debug, Default)]
pub struct SysctlFiles {
    /// In the order in which they take effect.
    pub assignments: Vec<(Assignment, Readers)>,
    /// Of the kernel's command line, for a module that is not there yet.
    pub in_vain: Vec<Assignment>,
    /// Keys that wildcards do not set.
    excluded: BTreeSet<String>,
    /// Those that this kernel has, if there are wildcards.
    live: Vec<String>,
    by_systemd: bool,
    pub sysctl_conf_comments: usize,
}

impl SysctlFiles {
    pub fn read(host: &Host) -> Result<Self, Unread> {
        let init = Init::of(host);
        let mut read = Self { by_systemd: init == Init::Systemd, ..Self::default() };
        read.command_line(host)?;
        let mut linked = false;
        let tops = if init == Init::Procd { &TOPS[..1] } else { &TOPS };
        for file in &host.drop_ins(tops, "sysctl.d", ".conf")? {
            let links = host.is_same_file(file, SYSCTL_CONF);
            linked |= links;
            read.add(host, if links { SYSCTL_CONF } else { file }, Readers::Boot)?;
        }
        if !linked {
            let readers = if read.by_systemd { Readers::ByHand } else { Readers::Boot };
            read.add(host, SYSCTL_CONF, readers)?;
            if let Some(install) = Modprobe::read(host)?.install.filter(|_| read.by_systemd) {
                let is_applied =
                    |key: &str| !install.command.contains("systemd-sysctl") && install.applies(key);
                for (assignment, readers) in &mut read.assignments {
                    if *readers == Readers::ByHand && is_applied(&assignment.key) {
                        *readers = Readers::Load;
                    }
                }
            }
        }
        if let Some(file) = of_ufw(host)? {
            read.add(host, &file, Readers::Ufw)?;
        }
        if read.assignments.iter().any(|(assignment, _)| is_pattern(&assignment.key)) {
            let names = host.names("/proc/sys/net/netfilter")?;
            read.live = names.iter().map(|name| format!("{KEYS}{name}")).collect();
        }
        let text = host.text(SYSCTL_CONF)?.unwrap_or_default();
        read.sysctl_conf_comments = text.lines().filter(|line| is_comment(line.trim())).count();
        Ok(read)
    }

    /// `sysctl.KEY=VALUE`, since Linux 5.8. What a module brings cannot be set so
    /// (`Documentation/admin-guide/kernel-parameters.txt`). A container sees its host's line, which sets
    /// nothing in its network namespace.
    fn command_line(&mut self, host: &Host) -> Result<(), Unread> {
        let is_hosts = host.is_there(&sysctl_path(MAX)) && !is_size_ours(host);
        if is_hosts || host.release()?.is_some_and(|release| release < (5, 8)) {
            return Ok(());
        }
        let is_there = host.is_built_in(CONNTRACK)?;
        let text = host.text(COMMAND_LINE)?.unwrap_or_default();
        let words = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix("sysctl"));
        for word in words.filter_map(|word| word.strip_prefix(['.', '/'])) {
            let Some(found) = assignment(COMMAND_LINE, 1, &word.replace('"', "")) else { continue };
            // Both separators are one there.
            let found = Assignment { key: found.key.replace('/', "."), ..found };
            if is_there || !found.key.contains(CONNTRACK) {
                self.assignments.push((found, Readers::Kernel));
            } else {
                self.in_vain.push(found);
            }
        }
        Ok(())
    }

    fn add(&mut self, host: &Host, file: &str, readers: Readers) -> Result<(), Unread> {
        for (line, text) in (1..).zip(host.text(file)?.unwrap_or_default().lines()) {
            let text = text.trim();
            if let Some(found) = assignment(file, line, text) {
                self.assignments.push((found, readers));
            } else if let Some(key) = text.strip_prefix('-') {
                self.excluded.insert(dotted(key.trim()));
            }
        }
        Ok(())
    }

    /// The assignment that the next boot leaves in force, and who applies it. A key of two names has
    /// the value that either was given last.
    pub fn at_boot(&self, key: &str) -> Option<(&Assignment, Readers)> {
        self.at_boot_without("", key)
    }

    /// The one that would win without this file.
    pub fn at_boot_without(&self, file: &str, key: &str) -> Option<(&Assignment, Readers)> {
        let names: &[&str] = if key == MAX { &[MAX, OLD_MAX] } else { &[key] };
        let last = names.iter().filter_map(|name| self.last(file, name)).max_by_key(|(at, _)| *at);
        last.map(|(_, (assignment, readers))| (assignment, *readers))
    }

    fn last(&self, without: &str, name: &str) -> Option<(usize, &(Assignment, Readers))> {
        let at_boot = || {
            let all = self.assignments.iter().enumerate();
            all.filter(|(_, (found, by))| *by != Readers::ByHand && found.file != without)
        };
        let mut last: Option<(usize, &(Assignment, Readers))> = None;
        for (at, found) in at_boot().filter(|(_, (found, _))| found.key == name) {
            let repeats = |(_, before): &(usize, &(Assignment, Readers))| {
                before.0.value == found.0.value && before.1 == found.1
            };
            if !self.by_systemd || !last.as_ref().is_some_and(repeats) {
                last = Some((at, found));
            }
        }
        if last.is_some() || self.excluded.contains(name) {
            return last;
        }
        at_boot().rfind(|(_, (found, _))| matches(&found.key, name))
    }

    /// Lines that take effect after a file of this name in `sysctl.d`.
    pub fn after(&self, name: &str) -> impl Iterator<Item = &Assignment> {
        let is_after = move |(found, by): &&(Assignment, Readers)| match by {
            Readers::ByHand | Readers::Kernel => false,
            Readers::Ufw | Readers::Load => true,
            Readers::Boot if found.file == SYSCTL_CONF => !self.by_systemd,
            Readers::Boot => found.file.rsplit('/').next().is_some_and(|file| file > name),
        };
        self.assignments.iter().filter(is_after).map(|(found, _)| found)
    }

    /// The keys that are set, each by its present name.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.assignments.iter().map(|(assignment, _)| assignment.key.as_str());
        let named = keys.clone().filter(|key| !is_pattern(key));
        let named = named.map(present_name);
        let is_matched = |live: &&String| keys.clone().any(|key| matches(key, live));
        let matched = self.live.iter().filter(is_matched).map(String::as_str);
        named.chain(matched).collect::<BTreeSet<_>>().into_iter()
    }
}

/// The maximum has an older name.
pub fn present_name(key: &str) -> &str {
    if key == OLD_MAX { MAX } else { key }
}

/// The file that ufw applies, while it is enabled.
fn of_ufw(host: &Host) -> Result<Option<String>, Unread> {
    let variable = |path: &str, name: &str| -> Result<Option<String>, Unread> {
        let text = host.text(path)?.unwrap_or_default();
        let mut values = text.lines().filter_map(|line| line.trim().strip_prefix(name));
        Ok(values.next_back().map(|value| value.trim_matches(['"', '\'']).to_owned()))
    };
    let enabled = variable(UFW_ENABLED, "ENABLED=")?;
    if !enabled.is_some_and(|enabled| enabled.eq_ignore_ascii_case("yes")) {
        return Ok(None);
    }
    Ok(Some(variable(UFW_DEFAULTS, "IPT_SYSCTL=")?.unwrap_or_else(|| UFW.to_owned())))
}

fn is_comment(line: &str) -> bool {
    line.starts_with(['#', ';'])
}

fn assignment(file: &str, line: usize, text: &str) -> Option<Assignment> {
    if is_comment(text) {
        return None;
    }
    let (key, value) = text.split_once('=')?;
    // A leading minus sign: ignore errors.
    let key = dotted(key.trim().trim_start_matches('-').trim());
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Assignment { file: file.to_owned(), line, key, value })
}

fn is_pattern(key: &str) -> bool {
    key.contains(['*', '?', '['])
}

/// Whether a pattern such as `net.netfilter.nf_conntrack_*` names a key; no wildcard matches a dot.
fn matches(pattern: &str, key: &str) -> bool {
    fn from(pattern: &[u8], key: &[u8]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                let most = key.iter().take_while(|byte| **byte != b'.').count();
                (0..=most).any(|taken| from(rest, &key[taken..]))
            }
            ([b'?', rest @ ..], [next, after @ ..]) if *next != b'.' => from(rest, after),
            ([one, rest @ ..], [next, after @ ..]) if one == next => from(rest, after),
            _ => false,
        }
    }
    is_pattern(pattern) && pattern.len() < 128 && from(pattern.as_bytes(), key.as_bytes())
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
    use std::{os::unix::fs::symlink, process::Command};

    use super::{
        super::testing::{Fake, output},
        *,
    };

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
        let (found, _) = files.at_boot("net.y").unwrap();
        assert_eq!((found.value.as_str(), found.line), ("3 4", 2));
        assert_eq!(found.file, "/etc/sysctl.d/90-b.conf");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["net.y", "net.z"]);
    }

    /// Fails when systemd itself reads other files, or in another order.
    #[test]
    fn systemd_reads_the_same_files_in_the_same_order() {
        let names = [
            "etc/sysctl.d/50-a",
            "usr/lib/sysctl.d/50-a",
            "run/sysctl.d/zz",
            "usr/lib/sysctl.d/a",
            "etc/sysctl.d/99-Z",
            "usr/local/lib/sysctl.d/100",
            "run/sysctl.d/50-a",
        ];
        let paths = names.map(|name| format!("/{name}.conf"));
        let files: Vec<_> = paths.iter().map(|path| (path.as_str(), "net.x = 1\n")).collect();
        let fake = Fake::new("conf-systemd", &files);
        let root = fake.host.path("").display().to_string();
        let root = root.trim_end_matches('/');
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["--root", root, "cat-config", "sysctl.d"]);
        let test = "systemd_reads_the_same_files_in_the_same_order";
        let Some(shown) = output(&mut analyze, test) else { return };
        let shown = shown.lines().filter_map(|line| line.strip_prefix("# ")?.strip_prefix(root));
        let read = SysctlFiles::read(&fake.host).unwrap();
        let read = read.assignments.iter().map(|(found, _)| found.file.as_str());
        assert_eq!(read.collect::<Vec<_>>(), shown.collect::<Vec<_>>());
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
        let (found, _) = files.at_boot("net.x").unwrap();
        assert_eq!((found.file.as_str(), found.value.as_str()), ("/etc/sysctl.conf", "1"));
    }

    fn files(files: &[(&str, &str)]) -> SysctlFiles {
        SysctlFiles::read(&Fake::new("conf", files).host).unwrap()
    }

    fn max_of(read: &SysctlFiles) -> Option<&str> {
        read.at_boot(MAX).map(|(found, _)| found.value.as_str())
    }

    const OLD: (&str, &str) = ("/etc/sysctl.d/10-old.conf", "net.nf_conntrack_max = 65536\n");
    const NEW: (&str, &str) = ("/etc/sysctl.d/90-new.conf", "net.netfilter.nf_conntrack_max=7\n");

    #[test]
    fn the_maximum_has_two_names_and_the_last_line_of_either_wins() {
        let read = files(&[OLD, NEW]);
        assert_eq!(max_of(&read), Some("7"));
        assert_eq!(read.keys().collect::<Vec<_>>(), [MAX]);
        let last = ("/etc/sysctl.d/99.conf", "net.nf_conntrack_max = 65536\n");
        assert_eq!(max_of(&files(&[OLD, NEW, last])), Some("65536"));
        let systemd = ("/usr/lib/systemd/systemd", "");
        assert_eq!(max_of(&files(&[systemd, OLD, NEW, last])), Some("7"), "it repeats a value");
    }

    #[test]
    fn wildcards_set_what_no_line_names_or_excludes() {
        let live = ["tcp_timeout_close", "udp_timeout", "icmp_timeout"]
            .map(|name| (format!("/proc/sys/net/netfilter/nf_conntrack_{name}"), "1\n"));
        let all = "net.netfilter.nf_conntrack_*timeout* = 9\n-net.netfilter.nf_conntrack_udp_timeout\n\
            net.netfilter.nf_conntrack_icmp_timeout = 5\n";
        let mut machine = vec![("/etc/sysctl.d/a.conf", all)];
        machine.extend(live.iter().map(|(path, text)| (path.as_str(), *text)));
        let read = files(&machine);
        let at_boot = |name: &str| {
            let found = read.at_boot(&format!("{KEYS}nf_conntrack_{name}"))?;
            Some(found.0.value.as_str())
        };
        assert_eq!(at_boot("tcp_timeout_close"), Some("9"));
        assert_eq!(at_boot("udp_timeout"), None);
        assert_eq!(at_boot("icmp_timeout"), Some("5"));
        assert_eq!(at_boot("max"), None);
        assert_eq!(read.keys().count(), 3);
    }

    #[test]
    fn a_number_is_what_the_kernel_makes_of_a_line() {
        let of = |value: &str| Assignment {
            file: String::new(),
            line: 1,
            key: String::new(),
            value: value.to_owned(),
        };
        for (value, number) in [
            ("7", Some(7)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("7 # x", Some(7)),
        ] {
            assert_eq!(of(value).number(), number, "{value}");
        }
        for value in ["7#x", "", "many", "-1"] {
            assert_eq!(of(value).number(), None, "{value}");
        }
    }

    #[test]
    fn ufw_applies_its_file_only_while_it_is_enabled() {
        let file = ("/etc/ufw/sysctl.conf", "net/netfilter/nf_conntrack_max=5\n");
        assert_eq!(max_of(&files(&[file])), None);
        assert_eq!(max_of(&files(&[file, ("/etc/ufw/ufw.conf", "ENABLED=no\n")])), None);
        let on = ("/etc/ufw/ufw.conf", "# x\nENABLED=yes\n");
        assert_eq!(max_of(&files(&[file, on, NEW])), Some("5"));
        let elsewhere = ("/etc/default/ufw", "IPT_SYSCTL=/etc/my.conf\n");
        assert_eq!(max_of(&files(&[file, on, elsewhere, NEW])), Some("7"));
    }

    #[test]
    fn the_kernels_command_line_comes_first_and_sets_nothing_of_a_module() {
        let release = ("/proc/sys/kernel/osrelease", "6.1\n");
        let line = (
            "/proc/cmdline",
            "quiet sysctl.net/netfilter.nf_conntrack_max=9 sysctl.net.core.x=\"3\"\n",
        );
        let module = files(&[release, line]);
        assert_eq!(max_of(&module), None);
        assert_eq!(module.in_vain[0].key, MAX);
        assert_eq!(module.at_boot("net.core.x").unwrap().0.value, "3");
        let built_in = ("/lib/modules/6.1/modules.builtin", "kernel/nf_conntrack.ko\n");
        assert_eq!(max_of(&files(&[release, line, built_in])), Some("9"));
        assert_eq!(max_of(&files(&[release, line, built_in, NEW])), Some("7"), "init comes later");
        let old = ("/proc/sys/kernel/osrelease", "5.4\n");
        let before = files(&[old, line]);
        assert!(before.in_vain.is_empty() && before.at_boot("net.core.x").is_none());
    }

    #[test]
    fn procd_reads_etc_alone_and_sysctl_conf_last() {
        let machine = [
            ("/etc/openwrt_release", ""),
            NEW,
            ("/usr/lib/sysctl.d/99-x.conf", "net.nf_conntrack_max=8\n"),
            ("/etc/sysctl.conf", "net.netfilter.nf_conntrack_max=6\n"),
        ];
        assert_eq!(max_of(&files(&machine)), Some("6"));
        assert_eq!(max_of(&files(&machine[..3])), Some("7"));
    }

    #[test]
    fn a_line_of_modprobe_d_has_sysctl_conf_read_when_conntrack_is_loaded() {
        let install = "install nf_conntrack modprobe -i nf_conntrack; sysctl --pattern \
            'net[.]netfilter[.]nf_conntrack.*' --system\n";
        let both = "net.netfilter.nf_conntrack_max=6\nnet.nf_conntrack_max=5\n";
        let machine = [
            ("/usr/lib/systemd/systemd", ""),
            ("/etc/sysctl.conf", both),
            ("/usr/lib/modprobe.d/firewalld-sysctls.conf", install),
        ];
        assert_eq!(max_of(&files(&machine[..2])), None);
        assert_eq!(max_of(&files(&machine)), Some("6"), "the pattern does not name the other");
    }
}
