//! Machines from the field, rebuilt from public reports: what is wrong with each, and what its mends
//! do. `docs/field-log.md` has the sources.

mod machines;
mod mended;

use self::machines::{CASES, Files};
use super::testing::Machine;

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
