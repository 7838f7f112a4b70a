//! Machines from the field, rebuilt from public reports: what is wrong with each, and what its mends
//! do. `docs/field-log.md` has the sources.

mod machines;

use std::{fs, process::Command};

use self::machines::{CASES, Files, OLD_MAX};
use super::{finding::Severity, testing::Machine};
use crate::{
    host::{MAX, sysctl_path},
    tune::{self, Max},
};

fn machine(files: Files) -> Machine {
    let machine = Machine::healthy("cases");
    for (path, text) in files {
        machine.write(path, text);
    }
    machine
}

#[test]
fn every_machine_is_told_what_is_wrong_with_it_and_nothing_else() {
    for (name, files, expected) in CASES {
        assert_eq!(machine(files).checks(), *expected, "{name}");
    }
}

/// Fails when a number in a command differs from tune's on one of these machines.
#[test]
fn no_machine_is_told_other_numbers_than_tune_would_set() {
    let compared: usize =
        CASES.iter().map(|(name, files, _)| machine(files).compare_with_tune(name).len()).sum();
    assert!(compared > 10, "{compared}");
}

/// What the kernel and tune do when a command is run on the machine of files.
fn run(machine: &Machine, command: &str) {
    let command = command.split("    #").next().unwrap_or_default();
    let host = machine.host();
    if let Some((first, rest)) = command.split_once(" && ") {
        run(machine, first);
        return run(machine, rest);
    }
    if let Some(arguments) = command.strip_prefix("ctguard tune ") {
        let words: Vec<_> = arguments.split(' ').collect();
        let max = words.iter().position(|word| *word == "--max").map(|at| words[at + 1]);
        let max = max.map_or(Max::Auto, |max| Max::Entries(max.parse().unwrap()));
        let proposal = tune::propose(host, None, max).unwrap();
        let files = if words.contains(&"--persist") { proposal.files.as_slice() } else { &[] };
        tune::apply(host, &proposal.changes, files).unwrap();
    } else {
        // Directories that each system has.
        for directory in ["modprobe.d", "modules-load.d", "modules.d", "sysctl.d"] {
            fs::create_dir_all(host.path(&format!("/etc/{directory}"))).unwrap();
        }
        let root = host.path("").display().to_string();
        let script = command.replace(" /", &format!(" {root}/"));
        let sysctl = r#"sysctl() { shift; for it in "$@"; do
            file=$ROOT/proc/sys/$(echo "${it%%=*}" | tr . /); [ -f "$file" ] && echo "${it#*=}" > "$file"
            done; }; "#;
        let mut shell = Command::new("sh");
        let script = format!("set -e; {sysctl}{script}");
        let ran =
            shell.args(["-c", &script]).env("ROOT", &root).current_dir(&root).output().unwrap();
        assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    let max = fs::read_to_string(host.path(&sysctl_path(MAX))).unwrap();
    machine.write(OLD_MAX, &max);
}

/// Fails when a command that doctor prints does not mend, or breaks something else.
#[test]
fn after_any_mend_its_finding_is_gone_and_nothing_else_is_wrong() {
    let mut ran = 0;
    for (name, files, expected) in CASES {
        let mends = |machine: &Machine| -> Vec<(&'static str, String)> {
            let found = machine.audit().findings;
            let wrong = found.into_iter().filter(|finding| finding.severity != Severity::Note);
            let each = wrong.flat_map(|finding| {
                finding.mend.into_iter().map(move |mend| (finding.check, mend.command))
            });
            each.collect()
        };
        for (check, command) in mends(&machine(files)) {
            let machine = machine(files);
            run(&machine, &command);
            let left: Vec<_> = expected.iter().filter(|it| **it != check).collect();
            let found = machine.checks();
            assert!(!found.contains(&check), "{name}: {command} leaves {check}");
            assert!(
                found.iter().all(|it| left.contains(&it)),
                "{name}: {command}: {:?}",
                machine.audit().findings
            );
            let count = machine.host().number(&sysctl_path("net.netfilter.nf_conntrack_count"));
            let max = machine.host().number(&sysctl_path(MAX)).unwrap().unwrap();
            assert!(max == 0 || max > count.unwrap().unwrap(), "{name}: {command}");
            ran += 1;
        }
    }
    assert!(ran > 30, "only {ran} commands were tried");
}

#[test]
fn what_another_program_sets_is_not_advised_to_be_set_here() {
    for (name, files, expected) in CASES.iter().filter(|(.., expected)| *expected == ["undone"]) {
        let audit = machine(files).audit();
        let finding = audit.notes(expected[0])[0];
        assert!(
            finding.mend.is_empty() && finding.why.contains("by itself"),
            "{name}: {finding:?}"
        );
    }
    let machine = machine(&[
        ("/proc/77/comm", "pve-firewall\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_count", "240000\n"),
    ]);
    let audit = machine.audit();
    let fill = audit.notes("fill")[0];
    assert!(fill.mend.is_empty() && fill.why.contains("host.fw"), "{fill:?}");
}
