//! Whether conntrack is loaded, and whether this network namespace may change its settings.

use super::{
    finding::{Finding, Findings},
    planned::Planned,
};
use crate::host::{COUNT, Host, MAX, TableNumbers, is_size_ours, sysctl_path};

const OLD_MAX: &str = "net.nf_conntrack_max";

pub(super) fn check(
    host: &Host,
    planned: &Planned,
    findings: &mut Findings,
) -> Option<TableNumbers> {
    let Some(table) = findings.read("table", TableNumbers::read(host))? else {
        let what = "conntrack is not loaded: there is no table that could fill";
        let absent = Finding::note("not-loaded", what).read(sysctl_path(COUNT), "absent");
        findings.add([absent.because(
            "a rule with `ct state` or NAT loads it, and so does listing NAT rules with `iptables -t \
             nat -L`; ctguard never does. Settings in sysctl.d take effect only if something applies \
             them after that",
        )]);
        return None;
    };
    findings.add(in_own_namespace(host));
    let old = findings.number("old-path", host, OLD_MAX).filter(|old| *old != table.max);
    findings.add(old.map(|old| {
        let larger = || format!("sysctl -w {MAX}={}", table.max.max(old));
        Finding::warning("old-path", "two files show different maximums")
            .read(sysctl_path(OLD_MAX), old)
            .read(sysctl_path(MAX), table.max)
            .because(
                "both are the same setting in the first network namespace; something hides one of \
                 them",
            )
            .by_hand(planned.set_size().unwrap_or_else(larger))
    }));
    Some(table)
}

/// By what can be set here: process 1 may be a container's. Before Linux 5.13 another namespace could
/// set the maximum, and did so for all.
fn in_own_namespace(host: &Host) -> Option<Finding> {
    let [own, first] = ["self", "1"].map(|process| host.network_namespace(process));
    let is_another = own.zip(first).is_some_and(|(own, first)| own != first);
    let finding = Finding::note(
        "namespace",
        "this is not the first network namespace, which alone can set the table's maximum and hash",
    )
    .because(
        "the host's `nf_conntrack_max` and `nf_conntrack_buckets` apply here: examine the host as well",
    )
    .read(sysctl_path(MAX), if is_size_ours(host) { "can be set" } else { "read-only" });
    let finding = if is_another {
        finding.by_hand("nsenter --target 1 --net ctguard doctor")
    } else {
        finding
    };
    finding.when(is_another || !is_size_ours(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::testing::Machine, host::testing::Fake};

    #[test]
    fn a_kernel_without_conntrack_is_no_fault() {
        let fake = Fake::new("presence-none", &[]);
        let mut findings = Findings::default();
        assert_eq!(check(&fake.host, &Planned::default(), &mut findings), None);
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
        assert!(machine.found().is_empty());
        assert_eq!(machine.audit().notes("namespace")[0].mend.len(), 1);
    }

    /// Fails when a container with process ids of its own takes itself for the host.
    #[test]
    fn a_container_is_told_by_what_it_may_set_and_not_by_its_process_1() {
        use std::{
            fs,
            os::unix::fs::{PermissionsExt as _, symlink},
        };
        let machine = Machine::healthy("presence-container");
        machine.write("/proc/1/ns/x", "");
        machine.write("/proc/self/ns/x", "");
        for process in ["1", "self"] {
            let link = machine.host().path(&format!("/proc/{process}/ns/net"));
            symlink("net:[2]", link).unwrap();
        }
        machine.write("/proc/sys/net/netfilter/nf_conntrack_count", "250000\n");
        let max = machine.host().path(&sysctl_path(MAX));
        fs::set_permissions(max, fs::Permissions::from_mode(0o444)).unwrap();
        let audit = machine.audit();
        assert!(audit.notes("namespace")[0].mend.is_empty());
        let fill = audit.notes("fill")[0];
        assert!(fill.mend.is_empty() && fill.why.contains("on the host"), "{fill:?}");
    }
}
