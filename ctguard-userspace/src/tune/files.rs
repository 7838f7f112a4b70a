//! Files that have the next boot set what was set now: tune's own, beside everybody else's.

use super::plan::Change;
use crate::host::{BUCKETS, Boot, Host};

/// The last by name of what distributions and people have there, so that it counts.
pub(crate) const SYSCTL: &str = "/etc/sysctl.d/99-zz-ctguard.conf";
const MODPROBE: &str = "/etc/modprobe.d/ctguard.conf";
const MODULES: &str = "/etc/modules-load.d/ctguard.conf";
const UDEV: &str = "/etc/udev/rules.d/99-ctguard.rules";

const HEAD: &str = "# Written by `ctguard tune`; `ctguard tune --revert` removes it.\n";

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnFile {
    pub(crate) path: &'static str,
    pub(crate) text: String,
}

/// What a udev rule runs to apply settings when conntrack appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applier {
    /// Its path.
    Systemd(&'static str),
    Procps(&'static str),
}

impl Applier {
    /// None where the machine has neither.
    pub(crate) fn find(host: &Host) -> Option<Self> {
        let first = |paths: &[&'static str]| paths.iter().copied().find(|path| host.is_there(path));
        let systemd = first(&["/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"]);
        let procps = || first(&["/usr/sbin/sysctl", "/sbin/sysctl"]).map(Self::Procps);
        systemd.map(Self::Systemd).or_else(procps)
    }

    fn command(self) -> String {
        match self {
            Self::Systemd(path) => {
                format!("{path} --prefix=/net/netfilter --prefix=/net/nf_conntrack_max")
            }
            Self::Procps(path) => format!("{path} -q -p {SYSCTL}"),
        }
    }
}

/// What a machine has to set settings at boot.
#[derive(Debug)]
pub(crate) struct Means<'a> {
    pub(crate) boot: &'a Boot,
    pub(crate) applier: Option<Applier>,
    /// Else the module's option alone sets the hash.
    pub(crate) buckets_by_sysctl: bool,
}

/// The files for these settings. Where conntrack is part of the kernel, `sysctl.d` alone is needed.
pub(crate) fn files(changes: &[Change], means: &Means<'_>) -> Vec<OwnFile> {
    let Means { boot, applier, buckets_by_sysctl } = means;
    let by_sysctl = changes.iter().filter(|change| *buckets_by_sysctl || change.key != BUCKETS);
    let lines = by_sysctl.map(|change| format!("{} = {}\n", change.key, change.then));
    let text = lines.fold(HEAD.to_owned(), |text, line| text + &line);
    let mut files = vec![OwnFile { path: SYSCTL, text }];
    if boot.built_in {
        return files;
    }
    if let Some(buckets) = changes.iter().find(|change| change.key == BUCKETS) {
        let text = format!("{HEAD}options nf_conntrack hashsize={}\n", buckets.then);
        files.push(OwnFile { path: MODPROBE, text });
    }
    files.push(OwnFile { path: MODULES, text: format!("{HEAD}nf_conntrack\n") });
    if let Some(applier) = applier {
        // As sysctl.d(5) has it for another module.
        let text = format!(
            "{HEAD}ACTION==\"add\", SUBSYSTEM==\"module\", KERNEL==\"nf_conntrack\", RUN+=\"{}\"\n",
            applier.command()
        );
        files.push(OwnFile { path: UDEV, text });
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(boot: &Boot, applier: Option<Applier>) -> Means<'_> {
        Means { boot, applier, buckets_by_sysctl: true }
    }

    fn changes() -> Vec<Change> {
        let change =
            |key: &str, then| Change { key: key.to_owned(), now: 1, then, why: String::new() };
        vec![change(BUCKETS, 65_536), change("net.netfilter.nf_conntrack_max", 65_536)]
    }

    #[test]
    fn a_module_needs_four_files_and_a_built_in_conntrack_one() {
        let systemd = Some(Applier::Systemd("/usr/lib/systemd/systemd-sysctl"));
        let paths = |boot: &Boot| -> Vec<_> {
            files(&changes(), &means(boot, systemd)).iter().map(|file| file.path).collect()
        };
        assert_eq!(paths(&Boot::default()), [SYSCTL, MODPROBE, MODULES, UDEV]);
        assert_eq!(paths(&Boot { built_in: true, ..Boot::default() }), [SYSCTL]);
    }

    #[test]
    fn the_hash_is_set_before_the_maximum_and_as_the_modules_option() {
        let boot = Boot::default();
        let files = files(&changes(), &means(&boot, None));
        let lines: Vec<_> = files[0].text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "net.netfilter.nf_conntrack_buckets = 65536",
                "net.netfilter.nf_conntrack_max = 65536"
            ]
        );
        assert!(files[1].text.ends_with("options nf_conntrack hashsize=65536\n"));
        assert_eq!(files.len(), 3, "nobody would run a rule's command");
    }

    /// Fails when each boot of an old kernel complains of a sysctl that cannot be set.
    #[test]
    fn a_hash_that_no_sysctl_sets_is_the_modules_option_alone() {
        let boot = Boot::default();
        let means = Means { buckets_by_sysctl: false, ..means(&boot, None) };
        let files = files(&changes(), &means);
        assert!(!files[0].text.contains("buckets") && files[1].text.contains("hashsize=65536"));
    }
}
