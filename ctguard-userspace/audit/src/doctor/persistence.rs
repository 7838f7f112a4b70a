//! Whether the next boot sets the same values, and lines in files that do nothing.

use std::collections::BTreeMap;

use super::{
    finding::{Finding, Findings},
    loading,
    mends::given,
    owners::Owner,
    planned::Planned,
    size::MOST_PER_BUCKET,
};
use crate::host::{
    Assignment, BUCKETS, Boot, COUNT, HASHSIZE, HeldBack, Host, Init, Install, Named, Parameter,
    Readers, SysctlFiles, TableNumbers, has_value, number, present_name, sets_buckets_by_sysctl,
    setting_path, sysctl_path,
};

/// Prefixes of conntrack's keys …
const CURRENT: [&str; 2] = ["net.netfilter.nf_conntrack_", "net.nf_conntrack_max"];
/// … and of the keys of `ip_conntrack`, the last of which Linux 4.9 removed
/// (`CONFIG_NF_CONNTRACK_PROC_COMPAT`), and of a mixture that never was.
const OBSOLETE: [&str; 3] =
    ["net.ipv4.netfilter.ip_conntrack_", "net.ipv4.ip_conntrack_", "net.netfilter.ip_conntrack_"];
/// Where an operator's own settings come after all others.
const LOCAL: &str = "/etc/sysctl.d/zz-local.conf";
const PERSIST: &str = "ctguard tune --apply --persist";

pub(super) fn check(
    host: &Host,
    table: Option<TableNumbers>,
    owners: &[Owner],
    planned: &Planned,
    findings: &mut Findings,
) {
    let Some(files) = findings.read("sysctl-files", SysctlFiles::read(host)) else { return };
    let Some(boot) = findings.read("boot", Boot::read(host)) else { return };
    let owner = |key: &str| owners.iter().find(|owner| owner.sets(key));
    if let Some(table) = table {
        for key in files.keys().filter(|key| is_current(key)) {
            if let Some(live) = findings.read("drift", host.sysctl(key)) {
                let live = live.as_deref();
                findings.add(drift(host, (&files, key), live, owner(key), planned));
            }
        }
        let by_sysctl = files.at_boot(BUCKETS).is_some_and(|_| boot.sets_in_time(BUCKETS));
        let is_overridden = by_sysctl && sets_buckets_by_sysctl(host) || owner(BUCKETS).is_some();
        findings.add(boot.hashsize().and_then(|it| hash_option(it, table, is_overridden)));
        findings.add(hash_script(host, &boot, table).filter(|_| !by_sysctl));
    }
    findings.add(only_by_hand(&files));
    findings.add(too_late(host, &files, &boot, &owner));
    findings.add(in_vain(host, (&files, &boot), &owner, planned));
    findings.add(wrong_lines(host, &files));
    findings.add(overwritten(&files));
    loading::check(&boot, table, findings);
}

fn is_current(key: &str) -> bool {
    CURRENT.iter().any(|prefix| key.starts_with(prefix)) && key != COUNT
}

/// `live` is none where this kernel does not have the key.
fn drift(
    host: &Host,
    (files, key): (&SysctlFiles, &str),
    live: Option<&str>,
    owner: Option<&Owner>,
    planned: &Planned,
) -> Option<Finding> {
    let (at_boot, _) = files.at_boot(key)?;
    let Assignment { file, line, value, .. } = at_boot;
    let place = at_boot.place();
    let Some(live) = live else {
        let what = format!("{place} sets {key}, which this kernel does not have");
        return Finding::note("unknown-key", what)
            .read(sysctl_path(key), "absent")
            .read(place, value)
            .because("the line has no effect: it was written for another kernel, or has a typing mistake")
            .into();
    };
    let Some(written) = at_boot.number() else {
        let finding = Finding::warning("wrong-line", format!("{place} sets {key} to {value:?}"))
            .read(place, value)
            .because("the kernel takes only numbers, and refuses the line");
        return Some(finding.by_editing(file, format!("sed -i '{line}d' {file}")));
    };
    let is_live = number(live).is_some_and(|live| has_value(key, live, written));
    let read = |finding: Finding| finding.read(sysctl_path(key), live).read(&place, value);
    if let Some(owner) = owner {
        let what = format!("{key} is {live}, and {place} sets it to {value} in vain");
        return read(Finding::warning("undone", what)).because(owner.instead(key)).when(!is_live);
    }
    let finding =
        read(Finding::fault("drift", format!("{key} is {live}, but {place} sets it to {written}")));
    let path = setting_path(host, key);
    if !host.is_writable(&path) && host.is_there(&path) {
        let why = "only the host can set it, and its value applies: the line has no effect here";
        return Finding { severity: super::Severity::Note, ..finding }.because(why).when(!is_live);
    }
    let finding = finding.because(
        "the file was applied before conntrack was loaded, or somebody has changed the value since: \
         it may be different after the next boot",
    );
    let set = planned.set_as_written(host, key, written);
    let may_stay = number(live).is_some_and(|live| planned.may_stay(host, key, live));
    let keep = may_stay.then(|| match &set {
        Some(_) => format!("{}    # if the present value is right", in_file(at_boot, key, live)),
        None => in_file(at_boot, key, live),
    });
    let mends = set.into_iter().chain(keep);
    mends.fold(finding, Finding::by_hand).when(!is_live)
}

/// Has the line that wins say another value. A package would overwrite its own file, and wildcards set
/// other keys too.
pub(super) fn in_file(line: &Assignment, key: &str, value: &str) -> String {
    let Assignment { file, line: number, key: written, .. } = line;
    if file.starts_with("/etc/") && !written.contains(['*', '?', '[']) {
        format!("sed -i '{number}s|=.*|= {value}|' {file}")
    } else {
        format!("echo '{key} = {value}' >> {LOCAL}")
    }
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
        .by_hand(format!("ln -s ../{below_etc} /etc/sysctl.d/99-sysctl.conf"))
        .into()
}

fn too_late<'o>(
    host: &Host,
    files: &SysctlFiles,
    boot: &Boot,
    owner: &impl Fn(&str) -> Option<&'o Owner>,
) -> Option<Finding> {
    let late = |key: &str| {
        let (found, by) = files.at_boot(key).filter(|_| is_current(key) && owner(key).is_none())?;
        let is_late = by == Readers::Boot && !boot.sets_in_time(&found.key);
        // What this kernel does not have is told elsewhere.
        (is_late && host.is_there(&sysctl_path(key))).then_some(found)
    };
    let late = files.keys().find_map(late)?;
    let what = format!("{} is applied at boot before conntrack is loaded", late.file);
    let list = match boot.init {
        Init::Procd => "/etc/modules.d",
        Init::Systemd | Init::Scripts => "/etc/modules-load.d",
    };
    let finding = Finding::warning("too-early", what)
        .read(late.place(), format!("{}={}", late.key, late.value));
    let why = "the setting does not exist at that time, and the line is silently ignored; conntrack is \
               loaded with its defaults by the first rule that needs it";
    if let Some(held) = boot.held_back().next() {
        let place = format!("{}:{}", held.file, held.line);
        let finding = finding
            .read(&place, &held.text)
            .because(format!("{why}. {place} keeps lists of modules from loading it"));
        let mend = load_early(boot).filter(|_| !boot.is_blocked());
        return Some(mend.into_iter().fold(finding, Finding::by_hand));
    }
    let finding = finding.read(list, "no nf_conntrack").because(why);
    if boot.is_blocked() {
        return Some(finding);
    }
    let finding = finding.tune(PERSIST);
    Some(load_early(boot).into_iter().fold(finding, Finding::by_hand))
}

/// The command that has a list of modules load conntrack; none where what holds it back cannot be
/// edited.
fn load_early(boot: &Boot) -> Option<String> {
    let mut commands = Vec::new();
    let mut held: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for HeldBack { file, line, .. } in boot.held_back() {
        if !file.contains("/modprobe.d/") {
            return None;
        }
        held.entry(file).or_default().push(format!("-e {line}d"));
    }
    commands.extend(held.iter().map(|(file, lines)| {
        let lines = lines.join(" ");
        match file.rsplit_once('/') {
            // A package's own file would come back. kmod reads the one in /etc instead.
            Some((directory, name)) if directory != "/etc/modprobe.d" => {
                format!("sed {lines} {file} > /etc/modprobe.d/{name}")
            }
            _ => format!("sed -i {lines} {file}"),
        }
    }));
    let is_listed = |named: &Named| named.name.replace('-', "_") == "nf_conntrack";
    if !boot.loaded.iter().any(is_listed) {
        let list = match boot.init {
            Init::Procd => "/etc/modules.d/nf-conntrack",
            Init::Systemd | Init::Scripts => "/etc/modules-load.d/nf_conntrack.conf",
        };
        commands.push(format!("echo nf_conntrack >> {list}"));
    }
    Some(commands.join(" && "))
}

/// `sysctl.KEY=` of the kernel's command line, which comes too early for a module.
fn in_vain<'o>(
    host: &Host,
    (files, boot): (&SysctlFiles, &Boot),
    owner: &impl Fn(&str) -> Option<&'o Owner>,
    planned: &Planned,
) -> Option<Finding> {
    // A kernel without modules has no list of what is built in, and sets the key after all.
    let may_be_built_in = host.built_in().ok().flatten().is_none();
    let is_set = |key: &str, written: Option<u64>| {
        let live = host.number(&sysctl_path(key)).ok().flatten();
        live.zip(written).is_some_and(|(live, written)| has_value(key, live, written))
    };
    let is_lost = |found: &&Assignment| {
        let key = present_name(&found.key);
        files.at_boot(key).is_none()
            && owner(key).is_none()
            && host.is_there(&sysctl_path(key))
            && host.is_writable(&setting_path(host, key))
            && !(may_be_built_in && is_set(key, found.number()))
    };
    let lost = files.in_vain.iter().find(is_lost)?;
    let (key, live) = (present_name(&lost.key), host.number(&sysctl_path(&lost.key)).ok()?);
    let finding = Finding::warning(
        "too-early",
        format!("{} sets {key} too early, so it has no effect", lost.file),
    )
    .read(lost.place(), format!("sysctl.{}={}", lost.key, lost.value))
    .because(
        "the kernel sets it before it starts init, when the settings of a module do not exist yet",
    );
    let (Some(written), Some(live)) = (lost.number(), live) else { return Some(finding) };
    let set = planned.set_as_written(host, key, written).filter(|_| !has_value(key, live, written));
    let value = set.as_deref().and_then(|set| given(set).find(|(set, _)| *set == key));
    let value = value.map_or_else(|| live.to_string(), |(_, value)| value.to_owned());
    let early = (!boot.sets_in_time(key)).then(|| load_early(boot));
    if boot.is_blocked() || early == Some(None) {
        return Some(finding);
    }
    let keep = format!("echo '{key} = {value}' >> {LOCAL}");
    let commands = set.into_iter().chain([keep]).chain(early.flatten());
    Some(finding.by_hand(commands.collect::<Vec<_>>().join(" && ")))
}

fn wrong_lines(host: &Host, files: &SysctlFiles) -> impl Iterator<Item = Finding> {
    files.assignments.iter().filter_map(|(assignment, _)| {
        let (file, key, place) = (&assignment.file, &assignment.key, assignment.place());
        let (what, why) = if key == COUNT {
            (
                "tries to set the number of entries",
                "nf_conntrack_count is read-only: it says how many entries the table holds",
            )
        } else if OBSOLETE.iter().any(|prefix| key.starts_with(prefix))
            && !host.is_there(&sysctl_path(key))
        {
            (
                "sets a key that this kernel does not have",
                "ip_conntrack became nf_conntrack, and Linux 4.9 removed its last keys; the line has no \
                 effect",
            )
        } else {
            return None;
        };
        let name = key.rsplit('.').next().unwrap_or_default();
        let finding = Finding::warning("wrong-line", format!("{place} {what}"))
            .read(place, format!("{key} = {}", assignment.value))
            .because(why);
        Some(finding.by_editing(file, format!("sed -i '/^[^#;]*{name}[ \\t]*=/d' {file}")))
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

fn hash_option(
    option: &Parameter,
    TableNumbers { max, buckets, .. }: TableNumbers,
    is_overridden: bool,
) -> Option<Finding> {
    let (place, file, line) = (option.place(), &option.file, option.line);
    let Some(value) = &option.value else {
        return Finding::fault("hash-option", format!("{place} gives hashsize no value"))
            .read(place, "hashsize")
            .because(
                "there must be no blank around the equals sign: the kernel refuses to load conntrack \
                 (Invalid argument), and NAT with it",
            )
            .by_hand(format!(
                "sed -i '{line}s/\\(^\\|[ \\t]\\)hashsize[ \\t]*=[ \\t]*/\\1hashsize=/' {file}"
            ))
            .into();
    };
    let change = |finding: Finding| {
        // Not of `expect-hashsize`, whose dash the kernel takes for an underscore.
        let command = format!(
            "sed -i '{line}s/\\(^\\|[ \\t]\\)hashsize=[^ \\t\\\\]*/\\1hashsize={buckets}/' {file}"
        );
        if buckets > 0 { finding.by_editing(file, command) } else { finding }
    };
    let Some(hashsize) = number(value) else {
        let what = format!("hashsize={value} in {file} is not a number");
        let finding = Finding::fault("hash-option", what).read(place, value);
        return Some(change(finding.because("the kernel refuses to load conntrack with it")));
    };
    if is_overridden {
        return None;
    }
    let read = format!("hashsize={hashsize}");
    if hashsize.saturating_mul(MOST_PER_BUCKET) < max {
        let what = format!("{file} sets {hashsize} buckets for a table of {max} entries");
        let finding = Finding::warning("hash-frozen", what)
            .read(place, read)
            .because("it is the width for a smaller table and was not changed with the maximum")
            .tune(PERSIST);
        return Some(if buckets.saturating_mul(MOST_PER_BUCKET) < max {
            finding
        } else {
            change(finding)
        });
    }
    let what = format!("the hash has {buckets} buckets, but {file} says {hashsize}");
    let finding =
        Finding::fault("hash-drift", what).read(HASHSIZE, buckets).read(place, read).because(
            "the option applies when the module is loaded: the hash will change at the next boot",
        );
    change(finding.tune(PERSIST)).when(buckets != 0 && !has_value(BUCKETS, buckets, hashsize))
}

fn hash_script(host: &Host, boot: &Boot, table: TableNumbers) -> Option<Finding> {
    let script = boot.hashsize_script.as_ref().filter(|_| boot.hashsize().is_none())?;
    let buckets = table.buckets;
    let finding =
        Finding::warning("hash-script", format!("only {script} sets the size of the hash"))
            .read(script, "hashsize")
            .because("it runs once, late at boot, and under systemd only if it is executable")
            .tune(PERSIST);
    // Where modprobe would give the option twice, or reads no options.
    let needs_sysctl = boot.built_in || boot.install().is_some_and(Install::repeats_options);
    let command = if needs_sysctl {
        format!("echo '{BUCKETS} = {buckets}' >> {LOCAL}")
    } else {
        format!(
            "echo 'options nf_conntrack hashsize={buckets}' >> /etc/modprobe.d/nf_conntrack.conf"
        )
    };
    let works =
        buckets > 0 && boot.init != Init::Procd && (!needs_sysctl || sets_buckets_by_sysctl(host));
    Some(if works { finding.by_hand(command) } else { finding })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use crate::{
        doctor::{finding::Severity, testing::Machine},
        host::sysctl_path,
    };

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

    /// Fails when a setting is said to be lost that the kernel has made, or one that nobody can make.
    #[test]
    fn a_line_of_the_kernel_is_in_vain_only_where_it_set_nothing() {
        let machine = Machine::healthy("persistence-vain");
        let line = |max: u32| format!("sysctl.net.netfilter.nf_conntrack_max={max}\n");
        machine.write("/proc/cmdline", &line(524_288));
        assert_eq!(machine.found(), [("too-early", Severity::Warning)]);
        machine.write("/proc/cmdline", &line(262_144));
        assert_eq!(machine.found(), [], "conntrack may be part of this kernel");
        machine.write("/lib/modules/6.12.0/modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        assert_eq!(machine.found(), [("too-early", Severity::Warning)]);
        let count = "net.netfilter.nf_conntrack_count";
        machine.write("/proc/cmdline", &format!("sysctl.{count}=0\n"));
        let path = machine.host().path(&sysctl_path(count));
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(machine.found(), [], "it is read-only");
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
