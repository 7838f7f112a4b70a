//! Whether the next boot sets the same values, and lines in files that do nothing.

use super::{
    finding::{Finding, Findings},
    size::MOST_PER_BUCKET,
};
use crate::host::{Boot, COUNT, HASHSIZE, Host, Readers, SysctlFiles, TableNumbers, sysctl_path};

/// Prefixes of conntrack's keys …
const CURRENT: [&str; 2] = ["net.netfilter.nf_conntrack_", "net.nf_conntrack_max"];
/// … and of the keys of `ip_conntrack`, the last of which Linux 4.9 removed
/// (`CONFIG_NF_CONNTRACK_PROC_COMPAT`).
const OBSOLETE: [&str; 2] = ["net.ipv4.netfilter.ip_conntrack_", "net.ipv4.ip_conntrack_"];
/// Modules that became part of `nf_conntrack` in Linux 4.19 and 5.1.
const GONE: [&str; 4] =
    ["nf_conntrack_ipv4", "nf_conntrack_ipv6", "nf_conntrack_proto_gre", "ip_conntrack"];
const PERSIST: &str = "ctguard tune --apply --persist";

pub(super) fn check(host: &Host, table: Option<TableNumbers>, findings: &mut Findings) {
    let Some(files) = findings.read("sysctl-files", SysctlFiles::read(host)) else { return };
    let Some(boot) = findings.read("boot", Boot::read(host)) else { return };
    if let Some(table) = table {
        for key in files.keys().filter(|key| is_current(key)) {
            if let Some(live) = findings.read("drift", host.sysctl(key)) {
                findings.add(drift(&files, key, live.as_deref()));
            }
        }
        findings.add(hash_option(&boot, table));
    }
    findings.add(only_by_hand(&files));
    findings.add(too_late(&files, &boot));
    findings.add(wrong_lines(&files));
    findings.add(overwritten(&files));
    findings.add(gone_modules(&boot));
    findings.add(hash_script(&boot));
}

fn is_current(key: &str) -> bool {
    CURRENT.iter().any(|prefix| key.starts_with(prefix)) && key != COUNT
}

/// `live` is none where this kernel does not have the key.
fn drift(files: &SysctlFiles, key: &str, live: Option<&str>) -> Option<Finding> {
    let at_boot = files.at_boot(key)?;
    let (place, value) = (at_boot.place(), &at_boot.value);
    let Some(live) = live else {
        let what = format!("{place} sets {key}, which this kernel does not have");
        return Finding::note("unknown-key", what)
            .read(sysctl_path(key), "absent")
            .read(place, value)
            .because("the line has no effect: it was written for another kernel, or has a typing mistake")
            .into();
    };
    Finding::fault("drift", format!("{key} is {live}, but {place} sets it to {value}"))
        .read(sysctl_path(key), live)
        .read(place, value)
        .because(
            "the file was applied before conntrack was loaded, or somebody has changed the value \
             since: it may be different after the next boot",
        )
        .by_hand(format!("sysctl -w {key}='{value}'"))
        .when(value != live)
}

/// Debian 13 no longer reads /etc/sysctl.conf.
fn only_by_hand(files: &SysctlFiles) -> Option<Finding> {
    let (lost, _) = files.assignments.iter().find(|(assignment, readers)| {
        let key = &assignment.key;
        *readers == Readers::ByHand && is_current(key) && files.at_boot(key).is_none()
    })?;
    let below_etc = lost.file.trim_start_matches("/etc/");
    Finding::fault("not-read-at-boot", format!("{} is not read at boot", lost.file))
        .read(lost.place(), format!("{}={}", lost.key, lost.value))
        .because(
            "systemd reads only *.conf in /etc/sysctl.d and similar directories, and none of them \
             links to this file",
        )
        .tune(PERSIST)
        .by_hand(format!("ln -s ../{below_etc} /etc/sysctl.d/99-sysctl.conf"))
        .into()
}

fn too_late(files: &SysctlFiles, boot: &Boot) -> Option<Finding> {
    let key = files.keys().find(|key| is_current(key))?;
    let early = files.at_boot(key).filter(|_| !boot.conntrack_is_early())?;
    let what = format!("{} is applied at boot before conntrack is loaded", early.file);
    Finding::warning("too-early", what)
        .read(early.place(), format!("{key}={}", early.value))
        .read("/etc/modules-load.d", "no nf_conntrack")
        .because(
            "the setting does not exist at that time, and the line is silently ignored; conntrack is \
             loaded with its defaults by the first rule that needs it",
        )
        .tune(PERSIST)
        .by_hand("echo nf_conntrack > /etc/modules-load.d/nf_conntrack.conf")
        .into()
}

fn wrong_lines(files: &SysctlFiles) -> impl Iterator<Item = Finding> {
    files.assignments.iter().filter_map(|(assignment, _)| {
        let (file, key, place) = (&assignment.file, &assignment.key, assignment.place());
        let (what, why) = if key == COUNT {
            (
                "tries to set the number of entries",
                "nf_conntrack_count is read-only: it says how many entries the table holds",
            )
        } else if OBSOLETE.iter().any(|prefix| key.starts_with(prefix)) {
            (
                "sets a key that was removed in Linux 4.9",
                "ip_conntrack became nf_conntrack; the line has no effect",
            )
        } else {
            return None;
        };
        let name = key.rsplit('.').next().unwrap_or_default();
        Finding::warning("wrong-line", format!("{place} {what}"))
            .read(place, format!("{key} = {}", assignment.value))
            .because(why)
            .by_hand(format!("sed -i '/{name}/d' {file}"))
            .into()
    })
}

/// Advice on the web often says `cat > /etc/sysctl.conf`; a distribution's file has comments.
fn overwritten(files: &SysctlFiles) -> Option<Finding> {
    const CONF: &str = "/etc/sysctl.conf";
    let lines = files.assignments.iter().map(|(line, _)| line).filter(|line| line.file == CONF);
    let about_conntrack: Vec<_> = lines.map(|line| line.key.contains("conntrack")).collect();
    let all = !about_conntrack.is_empty() && about_conntrack.iter().all(|about| *about);
    Finding::note("overwritten", "/etc/sysctl.conf contains only lines about conntrack")
        .read(CONF, "no comment, no other setting")
        .because(
            "distributions ship this file with comments: somebody may have overwritten it (`>` \
             instead of `>>`)",
        )
        .by_hand(
            "apt-get install --reinstall -o Dpkg::Options::=--force-confmiss procps    # on Debian",
        )
        .when(all && files.sysctl_conf_comments == 0)
}

fn gone_modules(boot: &Boot) -> impl Iterator<Item = Finding> {
    let gone = boot.loaded.iter().filter(|(_, module)| GONE.contains(&module.as_str()));
    gone.map(|(file, module)| {
        Finding::fault("gone-module", format!("{file} loads {module}, which no longer exists"))
            .read(file, module)
            .because("systemd-modules-load.service fails at boot; the module is now part of nf_conntrack")
            .by_hand(format!("sed -i 's/^{module}$/nf_conntrack/' {file}"))
    })
}

fn hash_option(boot: &Boot, TableNumbers { max, buckets, .. }: TableNumbers) -> Option<Finding> {
    let (file, value) = boot.hashsize.as_ref()?;
    let Ok(hashsize) = value.parse::<u64>() else {
        let what = format!("hashsize={value} in {file} is not a number");
        return Finding::fault("hash-option", what)
            .read(file, value)
            .because("the kernel refuses to load conntrack with it")
            .into();
    };
    let read = format!("hashsize={hashsize}");
    if hashsize.saturating_mul(MOST_PER_BUCKET) < max {
        let what = format!("{file} sets {hashsize} buckets for a table of {max} entries");
        return Finding::warning("hash-frozen", what)
            .read(file, read)
            .because("it is the width for a smaller table and was not changed with the maximum")
            .tune(PERSIST)
            .by_hand(format!("sed -i 's/hashsize=[0-9]*/hashsize={max}/' {file}"))
            .into();
    }
    let what = format!("the hash has {buckets} buckets, but {file} says {hashsize}");
    Finding::fault("hash-drift", what)
        .read(HASHSIZE, buckets)
        .read(file, read)
        .because(
            "the option applies when the module is loaded: the hash will change at the next boot",
        )
        .tune(PERSIST)
        .when(buckets != 0 && hashsize.next_power_of_two() != buckets.next_power_of_two())
}

fn hash_script(boot: &Boot) -> Option<Finding> {
    let script = boot.hashsize_script.as_ref().filter(|_| boot.hashsize.is_none())?;
    Finding::warning("hash-script", format!("only {script} sets the size of the hash"))
        .read(script, "hashsize")
        .because("it runs once, late at boot, and under systemd only if it is executable")
        .tune(PERSIST)
        .by_hand("echo 'options nf_conntrack hashsize=262144' > /etc/modprobe.d/nf_conntrack.conf")
        .into()
}

#[cfg(test)]
mod tests {
    use crate::doctor::{finding::Severity, testing::Machine};

    const FILE: &str = "/etc/sysctl.d/90-router.conf";

    fn with(test: &str, files: &[(&str, &str)]) -> Vec<(&'static str, Severity)> {
        let machine = Machine::healthy(&format!("persistence-{test}"));
        for (path, text) in files {
            machine.write(path, text);
        }
        machine.found()
    }

    #[test]
    fn a_file_that_says_another_value_is_a_fault_that_names_its_line() {
        let machine = Machine::healthy("persistence-drift");
        machine.write(FILE, "# ours\nnet/netfilter/nf_conntrack_max = 524288\n");
        assert_eq!(machine.found(), [("drift", Severity::Fault)]);
        let finding = &machine.audit().findings[0];
        assert!(finding.what.contains("/etc/sysctl.d/90-router.conf:2"), "{finding:?}");
        machine.write(FILE, "net.netfilter.nf_conntrack_max = 262144\n");
        assert!(machine.found().is_empty());
    }

    #[test]
    fn a_line_for_a_key_that_the_kernel_does_not_have_is_noted() {
        let machine = Machine::healthy("persistence-unknown");
        machine.write(FILE, "net.netfilter.nf_conntrack_tcp_timeout_establish = 3600\n");
        assert!(machine.found().is_empty());
        let audit = machine.audit();
        assert!(audit.notes("unknown-key")[0].what.contains("90-router.conf:1"));
    }

    #[test]
    fn a_file_that_is_read_before_conntrack_is_there_is_found() {
        let machine = Machine::healthy("persistence-early");
        machine.write(FILE, "net.netfilter.nf_conntrack_max = 262144\n");
        machine.remove("/etc/modules-load.d/conntrack.conf");
        assert_eq!(machine.found(), [("too-early", Severity::Warning)]);
    }

    #[test]
    fn lines_from_the_web_that_do_nothing_are_found() {
        let lines = "net.netfilter.nf_conntrack_count = 0\n\
            net.ipv4.netfilter.ip_conntrack_max = 65536\nnet.ipv4.ip_conntrack_max=1\n";
        assert_eq!(with("web", &[(FILE, lines)]), [("wrong-line", Severity::Warning); 3]);
    }

    #[test]
    fn a_sysctl_conf_that_systemd_does_not_read_is_found() {
        let files = [
            ("/run/systemd/system/x", ""),
            ("/etc/sysctl.conf", "#\nnet.netfilter.nf_conntrack_max=262144\n"),
        ];
        assert_eq!(with("by-hand", &files), [("not-read-at-boot", Severity::Fault)]);
    }

    #[test]
    fn modules_that_are_gone_are_found() {
        let files = [("/etc/modules-load.d/old.conf", "nf_conntrack_ipv4\n")];
        assert_eq!(with("gone", &files), [("gone-module", Severity::Fault)]);
    }

    #[test]
    fn a_hash_frozen_at_an_old_size_is_told_from_one_that_drifted() {
        let option = |size: &str| format!("options nf_conntrack hashsize={size}\n");
        let found = |test: &str, size: &str| {
            with(test, &[("/etc/modprobe.d/conntrack.conf", option(size).as_str())])
        };
        assert_eq!(found("hash-right", "262144"), []);
        assert_eq!(found("hash-frozen", "16384"), [("hash-frozen", Severity::Warning)]);
        assert_eq!(found("hash-drift", "131072"), [("hash-drift", Severity::Fault)]);
        assert_eq!(found("hash-text", "lots"), [("hash-option", Severity::Fault)]);
    }

    #[test]
    fn a_hash_that_only_a_script_sets_is_found() {
        let files = [("/etc/rc.local", "echo 1 > /sys/module/nf_conntrack/parameters/hashsize\n")];
        assert_eq!(with("script", &files), [("hash-script", Severity::Warning)]);
    }

    #[test]
    fn a_sysctl_conf_of_nothing_but_conntrack_is_noted() {
        let machine = Machine::healthy("persistence-overwritten");
        machine.write("/etc/sysctl.conf", "net.netfilter.nf_conntrack_max=262144\n");
        assert!(machine.found().is_empty());
        assert!(machine.all_found().contains(&("overwritten", Severity::Note)));
    }
}
