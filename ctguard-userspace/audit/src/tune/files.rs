//! Tune's own files, which make the next boot set what was set now.

use super::plan::Change;
use crate::host::{BUCKETS, Boot, EXPECT_MAX, Host, Init, Install, MAX, SysctlFiles};

/// Sorts after the names that distributions and people use, `local.conf` among them, so that it wins.
pub(super) const SYSCTL: &str = "/etc/sysctl.d/zz-ctguard.conf";
/// The last option for a parameter wins (modprobe.d(5)).
const MODPROBE: &str = "/etc/modprobe.d/zz-ctguard.conf";
const MODULES: &str = "/etc/modules-load.d/ctguard.conf";
const MODULES_OF_PROCD: &str = "/etc/modules.d/ctguard";
const UDEV: &str = "/etc/udev/rules.d/99-ctguard.rules";
const UDEV_MATCHES: &str = r#"ACTION=="add", SUBSYSTEM=="module", KERNEL=="nf_conntrack""#;

const UDEVADM: [&str; 4] =
    ["/usr/bin/udevadm", "/bin/udevadm", "/usr/sbin/udevadm", "/sbin/udevadm"];

pub(super) const ALL: [&str; 5] = [SYSCTL, MODPROBE, MODULES, MODULES_OF_PROCD, UDEV];

const HEAD: &str = "# Written by `ctguard tune`; `ctguard tune --revert` removes it.\n";

/// Whether a file was written by tune and contains nothing else, whatever the record says.
pub(super) fn is_own(path: &str, text: &str) -> bool {
    let start = match path {
        SYSCTL => "net.netfilter.nf_conntrack_",
        MODPROBE => "options nf_conntrack hashsize=",
        MODULES | MODULES_OF_PROCD => "nf_conntrack",
        UDEV => UDEV_MATCHES,
        _ => return false,
    };
    text.strip_prefix(HEAD).is_some_and(|rest| rest.lines().all(|line| line.starts_with(start)))
}

pub(super) fn own(text: &str) -> String {
    format!("{HEAD}{text}")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    pub path: &'static str,
    pub text: String,
}

/// The program that a udev rule runs to apply settings when conntrack is loaded, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applier {
    Systemd(&'static str),
    Procps(&'static str),
}

impl Applier {
    /// None where the machine has neither, or no udev.
    pub(super) fn find(host: &Host) -> Option<Self> {
        let first = |paths: &[&'static str]| paths.iter().copied().find(|path| host.is_there(path));
        let systemd = first(&["/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"]);
        let procps = || first(&["/usr/sbin/sysctl", "/sbin/sysctl"]).map(Self::Procps);
        first(&UDEVADM)?;
        systemd.map(Self::Systemd).or_else(procps)
    }

    fn command(self) -> String {
        let ours = "--prefix=/net/netfilter --prefix=/net/nf_conntrack_max";
        match self {
            Self::Systemd(path) => format!("{path} {ours}"),
            Self::Procps(path) => format!("{path} -q -p {SYSCTL}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Means<'a> {
    pub boot: &'a Boot,
    /// Including tune's own.
    pub sysctl_files: &'a SysctlFiles,
    pub applier: Option<Applier>,
    /// Otherwise only the module's option sets the hash.
    pub buckets_by_sysctl: bool,
}

impl Means<'_> {
    /// Whether tune's file needs a setting: not if another file sets the same value and the udev
    /// rule applies that file too.
    fn is_to_be_set(&self, change: &Change) -> bool {
        let others = self.sysctl_files.at_boot_without(SYSCTL, &change.key);
        let is_left = match change.key.as_str() {
            BUCKETS if !self.buckets_by_sysctl => true,
            // Only loading the module with another hash changes it.
            EXPECT_MAX => self.boot.built_in || others.is_some(),
            _ => others.is_some_and(|(others, _)| others.number() == Some(change.then)),
        };
        let all_are_applied =
            self.boot.built_in || matches!(self.applier, Some(Applier::Systemd(_)));
        !is_left || !all_are_applied && change.key != BUCKETS && change.key != EXPECT_MAX
    }
}

/// The files for these settings; only `sysctl.d` where conntrack is part of the kernel.
pub(super) fn files(changes: &[Change], means: &Means<'_>) -> Vec<OwnFile> {
    let set = changes.iter().filter(|change| means.is_to_be_set(change));
    let lines = set.map(|change| format!("{} = {}\n", change.key, change.then));
    let lines: String = lines.collect::<Vec<_>>().concat();
    let mut files = Vec::new();
    let mut add = |path, text: &str| files.push(OwnFile { path, text: own(text) });
    if !lines.is_empty() {
        add(SYSCTL, &lines);
    }
    if means.boot.built_in {
        return files;
    }
    if means.boot.init == Init::Procd {
        // It reads no other lists.
        if !means.boot.sets_in_time(MAX) {
            add(MODULES_OF_PROCD, "nf_conntrack\n");
        }
        return files;
    }
    let buckets = changes.iter().find(|change| change.key == BUCKETS);
    // Where modprobe would give the option twice, the sysctl alone sets the hash.
    let is_repeated = means.boot.install().is_some_and(Install::repeats_options);
    if let Some(buckets) = buckets.filter(|_| !(is_repeated && means.buckets_by_sysctl)) {
        add(MODPROBE, &format!("options nf_conntrack hashsize={}\n", buckets.then));
    }
    add(MODULES, "nf_conntrack\n");
    if let Some(applier) = means.applier {
        // As sysctl.d(5) has it for another module.
        add(UDEV, &format!("{UDEV_MATCHES}, RUN+=\"{}\"\n", applier.command()));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    const SYSTEMD: Option<Applier> = Some(Applier::Systemd("/usr/lib/systemd/systemd-sysctl"));
    const PROCPS: Option<Applier> = Some(Applier::Procps("/sbin/sysctl"));

    fn changes() -> Vec<Change> {
        let change =
            |key: &str, then| Change { key: key.to_owned(), now: 1, then, why: String::new() };
        vec![change(BUCKETS, 65_536), change(MAX, 65_536), change(EXPECT_MAX, 128)]
    }

    /// For a machine with a file of somebody else's.
    fn with(theirs: &str, boot: &Boot, applier: Option<Applier>, by_sysctl: bool) -> Vec<OwnFile> {
        let name = format!("tune-files-{}", theirs.len() + usize::from(by_sysctl) * 1000);
        let fake = Fake::new(&name, &[("/etc/sysctl.d/50-theirs.conf", theirs)]);
        let sysctl_files = &SysctlFiles::read(&fake.host).unwrap();
        files(&changes(), &Means { boot, sysctl_files, applier, buckets_by_sysctl: by_sysctl })
    }

    fn lines(file: &OwnFile) -> Vec<&str> {
        file.text.lines().skip(1).collect()
    }

    #[test]
    fn a_module_needs_four_files_and_a_built_in_conntrack_one() {
        let paths = |boot: &Boot| -> Vec<_> {
            with("", boot, SYSTEMD, true).iter().map(|file| file.path).collect()
        };
        assert_eq!(paths(&Boot::default()), [SYSCTL, MODPROBE, MODULES, UDEV]);
        assert_eq!(paths(&Boot { built_in: true, ..Boot::default() }), [SYSCTL]);
    }

    #[test]
    fn procd_is_given_what_it_reads_and_nothing_else() {
        let boot = Boot { init: Init::Procd, ..Boot::default() };
        let files = with("", &boot, None, true);
        let paths: Vec<_> = files.iter().map(|file| file.path).collect();
        assert_eq!(paths, [SYSCTL, MODULES_OF_PROCD]);
        assert!(is_own(MODULES_OF_PROCD, &files[1].text));
    }

    #[test]
    fn the_hash_is_set_before_the_maximum_and_as_the_modules_option() {
        let files = with("x = 1", &Boot::default(), None, true);
        let [buckets, max, expect_max] = [
            "net.netfilter.nf_conntrack_buckets = 65536",
            "net.netfilter.nf_conntrack_max = 65536",
            "net.netfilter.nf_conntrack_expect_max = 128",
        ];
        assert_eq!(lines(&files[0]), [buckets, max, expect_max]);
        assert_eq!(lines(&files[1]), ["options nf_conntrack hashsize=65536"]);
        assert_eq!(files.len(), 3, "nobody would run a rule's command");
    }

    /// Fails when each boot of an old kernel complains of a sysctl that cannot be set.
    #[test]
    fn a_hash_that_no_sysctl_sets_is_the_modules_option_alone() {
        let files = with("", &Boot::default(), None, false);
        assert!(!files[0].text.contains("buckets") && files[1].text.contains("hashsize=65536"));
    }

    /// Fails when tune's file undoes what somebody changes later in a file of his own.
    #[test]
    fn what_anothers_file_sets_likewise_is_left_to_it() {
        let theirs = "net.netfilter.nf_conntrack_max=65536\n\
            net.netfilter.nf_conntrack_expect_max = 4096\n";
        let files = with(theirs, &Boot::default(), SYSTEMD, true);
        assert_eq!(lines(&files[0]), ["net.netfilter.nf_conntrack_buckets = 65536"]);
        // It applies tune's file alone, late.
        let files = with(&format!("{theirs}\n"), &Boot::default(), PROCPS, true);
        assert_eq!(lines(&files[0]).len(), 2);
    }

    /// Fails when a line that somebody added goes with tune's.
    #[test]
    fn a_file_that_somebody_has_added_to_is_tunes_no_more() {
        for file in with("", &Boot::default(), SYSTEMD, true) {
            assert!(is_own(file.path, &file.text), "{}", file.path);
            let added = format!("{}net.ipv4.ip_forward = 1\n", file.text);
            assert!(!is_own(file.path, &added), "{}", file.path);
        }
    }

    #[test]
    fn where_no_udev_runs_no_rule_is_written() {
        let systemd = ("/usr/lib/systemd/systemd-sysctl", "");
        let fake = Fake::new("tune-files-udev", &[systemd]);
        assert_eq!(Applier::find(&fake.host), None);
        fake.write("/usr/bin/udevadm", "");
        assert_eq!(Applier::find(&fake.host), SYSTEMD);
    }
}
