//! Whether the values of now are those of the next boot, and lines from the web that do nothing.

use super::finding::{Finding, Findings};
use crate::host::{
    Assignment, Boot, COUNT, HASHSIZE, Host, Readers, SysctlFiles, TableNumbers, sysctl_path,
};

/// Prefixes of keys that are about conntrack …
const CURRENT: [&str; 2] = ["net.netfilter.nf_conntrack_", "net.nf_conntrack_max"];
/// … and of those that `ip_conntrack` had. Linux 4.8 removed the last of them
/// (`CONFIG_NF_CONNTRACK_PROC_COMPAT`).
const OBSOLETE: [&str; 2] = ["net.ipv4.netfilter.ip_conntrack_", "net.ipv4.ip_conntrack_"];
/// Modules that became part of `nf_conntrack` in Linux 4.19 and 5.1.
const GONE: [&str; 4] =
    ["nf_conntrack_ipv4", "nf_conntrack_ipv6", "nf_conntrack_proto_gre", "ip_conntrack"];

/// F, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, table: Option<TableNumbers>, findings: &mut Findings) {
    let Some(files) = findings.read("sysctl-files", SysctlFiles::read(host)) else { return };
    let Some(boot) = findings.read("boot", Boot::read(host)) else { return };
    if table.is_some() {
        for key in files.keys().filter(|key| is_current(key)) {
            match findings.read("drift", host.sysctl(key)) {
                Some(Some(live)) => findings.add(drift(&files, key, &live)),
                Some(None) => findings.add(unknown(&files, key)),
                None => {}
            }
        }
        if let Some(table) = table {
            hash_option(&boot, table, findings);
        }
    }
    findings.add(only_by_hand(&files));
    findings.add(too_late(&files, &boot));
    findings.add(wrong_lines(&files));
    findings.add(overwritten(&files));
    gone_modules(&boot, findings);
    findings.add(hash_script(&boot));
}

fn is_current(key: &str) -> bool {
    CURRENT.iter().any(|prefix| key.starts_with(prefix)) && key != COUNT
}

fn drift(files: &SysctlFiles, key: &str, live: &str) -> Option<Finding> {
    let at_boot = files.at_boot(key).filter(|assignment| assignment.value != live)?;
    let place = format!("{}:{}", at_boot.file, at_boot.line);
    Some(
        Finding::fault("drift", format!("{key} is {live}, but {place} says {}", at_boot.value))
            .read(sysctl_path(key), live)
            .read(place, &at_boot.value)
            .because(
                "the file was applied before conntrack was loaded, or somebody changed the value \
                 since: after the next boot it will be another again",
            )
            .by_hand(format!("sysctl -w {key}='{}'", at_boot.value)),
    )
}

/// A key that was removed, or is misspelt.
fn unknown(files: &SysctlFiles, key: &str) -> Option<Finding> {
    let assignment = files.at_boot(key)?;
    let place = format!("{}:{}", assignment.file, assignment.line);
    Some(
        Finding::note(
            "unknown-key",
            format!("{place} sets {key}, which this kernel does not have"),
        )
        .read(sysctl_path(key), "absent")
        .read(place, &assignment.value)
        .because(
            "the line does nothing: a kernel that is newer or older than the advice, or a \
                 mistake in writing",
        ),
    )
}

/// Debian 13 reads /etc/sysctl.conf no longer.
fn only_by_hand(files: &SysctlFiles) -> Option<Finding> {
    let (lost, _) = files.assignments.iter().find(|(assignment, readers)| {
        *readers == Readers::ByHand
            && is_current(&assignment.key)
            && files.at_boot(&assignment.key).is_none()
    })?;
    Some(
        Finding::fault("not-read-at-boot", format!("{} is not read at boot", lost.file))
            .read(format!("{}:{}", lost.file, lost.line), format!("{}={}", lost.key, lost.value))
            .because(
                "systemd reads only *.conf of /etc/sysctl.d and the like; nothing there links \
                to this file",
            )
            .tune("ctguard tune --apply --persist")
            .by_hand(format!(
                "ln -s ../{} \
                /etc/sysctl.d/99-sysctl.conf",
                lost.file.trim_start_matches("/etc/")
            )),
    )
}

fn too_late(files: &SysctlFiles, boot: &Boot) -> Option<Finding> {
    let key = files.keys().find(|key| is_current(key))?;
    let assignment = files.at_boot(key).filter(|_| !boot.conntrack_is_early())?;
    Some(
        Finding::warning(
            "too-early",
            format!("{} is read at boot before conntrack is loaded", assignment.file),
        )
        .read(
            format!("{}:{}", assignment.file, assignment.line),
            format!("{key}={}", assignment.value),
        )
        .read("/etc/modules-load.d", "no nf_conntrack")
        .because(
            "the setting does not exist at that time, so the line is passed over in silence; \
             conntrack comes with the first rule that needs it, and with its defaults",
        )
        .tune("ctguard tune --apply --persist")
        .by_hand("echo nf_conntrack > /etc/modules-load.d/nf_conntrack.conf"),
    )
}

fn wrong_lines(files: &SysctlFiles) -> Vec<Finding> {
    let wrong = files.assignments.iter().filter_map(|(assignment, _)| {
        let place = format!("{}:{}", assignment.file, assignment.line);
        let line = format!("{} = {}", assignment.key, assignment.value);
        let (what, why) = if assignment.key == COUNT {
            (
                "sets the number of entries, which is not to be set",
                "it is what the table holds now, and read-only",
            )
        } else if OBSOLETE.iter().any(|prefix| assignment.key.starts_with(prefix)) {
            (
                "has a name that no kernel since 4.8 knows",
                "ip_conntrack became nf_conntrack: the line does nothing",
            )
        } else {
            return None;
        };
        let name = assignment.key.rsplit('.').next().unwrap_or_default();
        Some(
            Finding::warning("wrong-line", format!("{place} {what}"))
                .read(&place, &line)
                .because(why)
                .by_hand(format!("sed -i '/{name}/d' {}", assignment.file)),
        )
    });
    wrong.collect()
}

/// `cat > /etc/sysctl.conf` in place of `>>` is common advice; a distribution's file has comments.
fn overwritten(files: &SysctlFiles) -> Option<Finding> {
    let here = |assignment: &&Assignment| assignment.file == "/etc/sysctl.conf";
    let mut lines =
        files.assignments.iter().map(|(assignment, _)| assignment).filter(here).peekable();
    lines.peek()?;
    let all = lines.all(|assignment| assignment.key.contains("conntrack"));
    (all && files.sysctl_conf_comments == 0).then(|| {
        Finding::note("overwritten", "/etc/sysctl.conf holds nothing but conntrack's lines")
            .read("/etc/sysctl.conf", "no comment, no other setting")
            .because(
                "distributions ship this file with comments: somebody may have written over \
                it (`>` in place of `>>`)",
            )
            .by_hand(
                "apt-get install --reinstall -o Dpkg::Options::=--force-confmiss procps    # \
                of Debian",
            )
    })
}

fn gone_modules(boot: &Boot, findings: &mut Findings) {
    findings.add(boot.loaded.iter().filter(|named| GONE.contains(&named.module.as_str())).map(
        |named| {
            Finding::fault(
                "gone-module",
                format!(
                    "{} names {}, which is no module any \
            more",
                    named.file, named.module
                ),
            )
            .read(&named.file, &named.module)
            .because(
                "systemd-modules-load fails at boot, and others wait for it; the module is \
                part of nf_conntrack",
            )
            .by_hand(format!("sed -i 's/^{}$/nf_conntrack/' {}", named.module, named.file))
        },
    ));
}

fn hash_option(boot: &Boot, table: TableNumbers, findings: &mut Findings) {
    let Some(option) = &boot.hashsize else { return };
    let Ok(hashsize) = option.value.parse::<u64>() else {
        findings.add([Finding::fault(
            "hash-option",
            format!("{} has no number: hashsize={}", option.file, option.value),
        )
        .read(&option.file, &option.value)
        .because("modprobe hands it to the kernel, which refuses to load conntrack")]);
        return;
    };
    if hashsize.saturating_mul(4) < table.max {
        findings.add([Finding::warning(
            "hash-frozen",
            format!(
                "{} fixes the hash at {hashsize} buckets for a table of {} \
                entries",
                option.file, table.max
            ),
        )
        .read(&option.file, format!("hashsize={hashsize}"))
        .because(
            "it was chosen for another maximum (a quarter, an eighth of it) and stayed when \
            that was raised",
        )
        .tune("ctguard tune --apply --persist")
        .by_hand(format!("sed -i 's/hashsize=[0-9]*/hashsize={}/' {}", table.max, option.file))]);
    } else if table.buckets != 0
        && hashsize.next_power_of_two() != table.buckets.next_power_of_two()
    {
        findings.add([Finding::fault(
            "hash-drift",
            format!("the hash has {} buckets, but {} says {hashsize}", table.buckets, option.file),
        )
        .read(HASHSIZE, table.buckets)
        .read(&option.file, format!("hashsize={hashsize}"))
        .because(
            "the option counts only when the module is loaded: after the next boot it will be \
            another",
        )
        .tune("ctguard tune --apply --persist")]);
    }
}

fn hash_script(boot: &Boot) -> Option<Finding> {
    let script = boot.hashsize_script.as_ref().filter(|_| boot.hashsize.is_none())?;
    Some(
        Finding::warning("hash-script", format!("the size of the hash is set by {script} alone"))
            .read(script, "hashsize")
            .because(
                "it runs late at boot, if at all (systemd runs rc.local only where it is \
                executable), and once",
            )
            .tune("ctguard tune --apply --persist")
            .by_hand(
                "echo 'options nf_conntrack hashsize=262144' > \
                /etc/modprobe.d/nf_conntrack.conf",
            ),
    )
}

#[cfg(test)]
mod tests {
    use crate::doctor::{Severity, testing::Machine};

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
