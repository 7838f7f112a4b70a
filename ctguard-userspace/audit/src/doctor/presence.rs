//! Whether conntrack is there, and whether its settings are this namespace's to change.

use super::finding::{Finding, Findings};
use crate::host::{COUNT, Host, MAX, TableNumbers, is_size_ours, sysctl_path};

const OLD_MAX: &str = "net.nf_conntrack_max";

/// A, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, findings: &mut Findings) -> Option<TableNumbers> {
    let table = findings.read("table", TableNumbers::read(host))?;
    let Some(table) = table else {
        findings.add([Finding::note(
            "not-loaded",
            "this kernel tracks no connections: there is no table to fill",
        )
        .read(sysctl_path(COUNT), "absent")
        .because(
            "a rule with `ct state` or NAT loads conntrack, and so does a look at NAT's rules \
             (`iptables -t nat -L`); ctguard never does. Settings in sysctl.d hold from then on \
             only if something applies them then",
        )]);
        return None;
    };
    findings.add(in_own_namespace(host));
    if let Some(Some(old)) = findings.read("old-path", host.number(&sysctl_path(OLD_MAX))) {
        findings.add((old != table.max).then(|| {
            Finding::warning("old-path", "two files disagree on the table's maximum")
                .read(sysctl_path(OLD_MAX), old)
                .read(sysctl_path(MAX), table.max)
                .because(
                    "both are the same number in the first network namespace; something hides \
                    one of them",
                )
                .by_hand(format!("sysctl -w {MAX}={}", table.max.max(old)))
        }));
    }
    Some(table)
}

/// By process 1, where it may be asked; else by whether the maximum can be set.
fn in_own_namespace(host: &Host) -> Option<Finding> {
    let link = |path: &str| std::fs::read_link(host.path(path)).ok();
    let finding = Finding::warning(
        "namespace",
        "this is not the first network namespace: the table's maximum and hash are not its own",
    )
    .because(
        "outside the first network namespace `nf_conntrack_max` and `nf_conntrack_buckets` are \
         read-only: the host's values hold here as well",
    )
    .by_hand("nsenter --target 1 --net ctguard doctor");
    match (link("/proc/self/ns/net"), link("/proc/1/ns/net")) {
        (Some(own), Some(first)) => (own != first).then(|| {
            finding.read("/proc/self/ns/net", own.display()).read("/proc/1/ns/net", first.display())
        }),
        _ => (!is_size_ours(host)).then(|| finding.read(sysctl_path(MAX), "read-only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::testing::Machine, host::testing::Fake};

    #[test]
    fn a_kernel_without_conntrack_is_no_fault() {
        let fake = Fake::new("presence-none", &[]);
        let mut findings = Findings::default();
        assert_eq!(check(&fake.host, &mut findings), None);
        assert_eq!(findings.found[0].check, "not-loaded");
        assert!(findings.skipped.is_empty());
    }

    #[test]
    fn two_maxima_that_differ_are_found() {
        let machine = Machine::healthy("presence-old");
        machine.write("/proc/sys/net/nf_conntrack_max", "65536\n");
        assert_eq!(machine.checks(), ["old-path"]);
    }

    #[test]
    fn another_namespace_than_that_of_process_1_is_found() {
        use std::os::unix::fs::symlink;
        let machine = Machine::healthy("presence-namespace");
        machine.write("/proc/1/ns/x", "");
        machine.write("/proc/self/ns/x", "");
        symlink("net:[1]", machine.host().path("/proc/1/ns/net")).unwrap();
        symlink("net:[2]", machine.host().path("/proc/self/ns/net")).unwrap();
        assert_eq!(machine.checks(), ["namespace"]);
    }
}
