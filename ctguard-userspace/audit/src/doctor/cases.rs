//! Machines from the field, rebuilt from public reports: what is wrong with each, and what its mends
//! do. `docs/field-log.md` has the sources.

mod machines;
mod mended;

use self::machines::{CASES, Files, OLD_MAX};
use super::{finding::Severity, role::Role, testing::Machine};

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

/// Fails when a parameter without a value, with which the module cannot be loaded, is less than a fault.
#[test]
fn a_module_that_cannot_be_loaded_is_a_fault() {
    for (name, files, expected) in CASES.iter().filter(|(.., it)| *it == ["hash-option"]) {
        let found = machine(files).found();
        assert_eq!(found, [(expected[0], Severity::Fault)], "{name}");
        let audit = machine(files).audit();
        assert!(audit.findings[0].why.contains("refuses to load conntrack"), "{name}");
    }
}

/// Fails when kube-proxy is said never to lower values, or its own hour is found fault with.
#[test]
fn kube_proxy_is_told_to_lower_values_and_by_which_settings() {
    let (_, files, _) = CASES.iter().find(|(name, ..)| *name == "kube-proxy").unwrap();
    let audit = machine(files).audit();
    let why = &audit.notes("undone")[0].why;
    let named = ["before 1.22 and from 1.29 on it lowers", "conntrack.min", "`maxPerCore: 0`"];
    for words in named.into_iter().chain(["tcpEstablishedTimeout", "tcpCloseWaitTimeout"]) {
        assert!(why.contains(words), "no {words}: {why}");
    }
    let all = format!("{:?}", audit.findings);
    assert!(!all.contains("3599") && !all.contains("close_wait is"), "{all}");
}

/// Fails when a router of IPv6 alone is taken for a server, and its small table for large enough.
#[test]
fn a_machine_that_forwards_ipv6_alone_is_a_router_too() {
    let by_interface: Files = &[
        ("/proc/sys/net/ipv6/conf/wan0/forwarding", "1\n"),
        ("/proc/sys/net/ipv6/conf/lan0/forwarding", "1\n"),
    ];
    let of_all: Files = &[("/proc/sys/net/ipv6/conf/all/forwarding", "1\n")];
    let small: Files = &[
        ("/proc/sys/net/netfilter/nf_conntrack_max", "7680\n"),
        (OLD_MAX, "7680\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_buckets", "7680\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000\n"),
    ];
    let nat = ("/proc/net/ip6_tables_names", "nat\n");
    for forwarding in [by_interface, of_all] {
        let machine = machine(small);
        for (path, text) in forwarding {
            machine.write(path, text);
        }
        assert_eq!(Role::guess(machine.host()).unwrap(), Role::Gateway);
        machine.write(nat.0, nat.1);
        assert_eq!(Role::guess(machine.host()).unwrap(), Role::NatRouter);
        assert_eq!(machine.checks(), ["small-table", "timeout"]);
    }
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
