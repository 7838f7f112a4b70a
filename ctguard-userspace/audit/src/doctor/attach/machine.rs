//! What a guard needs from the kernel and from this process, on any interface.

use super::super::finding::{Finding, Findings, Severity};
use crate::host::{Host, sysctl_path};
use ctguard_kernel::{
    bpf::{Pins, check_lookup, check_pins, dies_with_container},
    privileges::{self, Missing},
};

/// The first kernels whose XDP links can be replaced in place, and with `bpf_xdp_ct_lookup`.
const NEEDED: (u32, u32) = (5, 15);
const WITH_LOOKUP: (u32, u32) = (5, 18);
const RELEASE: &str = "/proc/sys/kernel/osrelease";
const JIT: &str = "net.core.bpf_jit_enable";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const TYPES: &str = "/sys/kernel/btf/vmlinux";
const FILE_SYSTEMS: &str = "/proc/filesystems";

pub(super) fn check(host: &Host, pins: &Pins, findings: &mut Findings) {
    let release = findings.text("guard-kernel", host, RELEASE);
    let release = release.trim();
    findings.add(kernel(release));
    let jit_is_off = findings.number("guard-jit", host, JIT) == Some(0);
    let jit = Finding::warning("guard-jit", "the BPF JIT compiler is off")
        .read(sysctl_path(JIT), 0)
        .because("every packet costs several times as much CPU time")
        .by_hand(format!("sysctl -w {JIT}=1"));
    findings.add(jit.when(jit_is_off));
    let lockdown = findings.text("lockdown", host, LOCKDOWN);
    let confidential =
        Finding::warning("lockdown", "the kernel is locked down for confidentiality")
            .read(LOCKDOWN, lockdown.trim())
            .because("it may refuse to load BPF programs");
    findings.add(confidential.when(lockdown.contains("[confidentiality]")));
    if version(release).is_some_and(|found| found >= WITH_LOOKUP) {
        findings.add(lookup(host));
    }
    if let Some(Some(systems)) = findings.read("bpffs", host.text(FILE_SYSTEMS)) {
        findings.add(no_bpffs(&systems));
    }
    if host.is_this() {
        findings.add(privileges::missing().map(rights));
        let container = Finding::warning("bpffs", "pins die with this container")
            .read("/proc/self/ns/pid", "not the first pid namespace")
            .because(
                "when the container ends, its mounts go, and the guard with them: nothing is guarded until \
                 the next start. On the host, a guard outlives its daemon",
            );
        findings.add(container.when(dies_with_container()));
        findings.add(check_pins(pins).err().map(|error| {
            Finding::fault("bpffs", "the guard's maps cannot be pinned here")
                .read(pins.path().display().to_string(), error)
                .because(
                    "ctguard run mounts a bpffs of its own for them; /sys/fs/bpf is not needed",
                )
        }));
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|digit: char| !digit.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    Some((next()?, next()?))
}

fn kernel(release: &str) -> Option<Finding> {
    let version = version(release)?;
    let (severity, what, why) = if version < NEEDED {
        (
            Severity::Fault,
            format!("Linux {release} is too old for the guard"),
            "it needs Linux 5.15; `docs/table-full.md` has nftables rules that do part of its job",
        )
    } else {
        (
            Severity::Note,
            format!("XDP cannot look up conntrack entries in Linux {release}"),
            "the guard uses a flow cache instead; from Linux 5.18 on it asks conntrack",
        )
    };
    let finding = Finding::of("guard-kernel", severity, what).because(why).read(RELEASE, release);
    finding.when(version < WITH_LOOKUP)
}

fn lookup(host: &Host) -> Option<Finding> {
    let why = if host.is_this() {
        check_lookup().err()?.to_string()
    } else if host.is_there(TYPES) {
        return None;
    } else {
        "absent".to_owned()
    };
    Finding::note("guard-btf", "XDP cannot look up conntrack entries on this kernel")
        .read(TYPES, why)
        .because("the guard uses a flow cache instead")
        .into()
}

/// `CONFIG_BPF_SYSCALL` brings the file system with it (`kernel/bpf/inode.c`).
fn no_bpffs(systems: &str) -> Option<Finding> {
    let is_there = systems.lines().any(|line| line.split_whitespace().last() == Some("bpf"));
    Finding::fault("bpffs", "this kernel was built without BPF")
        .read(FILE_SYSTEMS, "no bpf")
        .because("without CONFIG_BPF_SYSCALL it cannot load the guard")
        .when(!is_there)
}

fn rights(Missing { capability, root }: Missing) -> Finding {
    let finding = if root {
        Finding::fault("rights", format!("root lacks {capability} here")).because(
            "ctguard run refuses to start; a container or a systemd unit took the capability away",
        )
    } else {
        Finding::note("rights", format!("ctguard run needs {capability}, which this process lacks"))
            .because("run it as root, or with CAP_NET_ADMIN and CAP_BPF or CAP_SYS_ADMIN")
    };
    finding.read("/proc/self/status", format!("CapEff without {capability}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn a_kernel_that_is_too_old_is_told_from_one_without_the_lookup() {
        let severity = |release| kernel(release).map(|finding| finding.severity);
        assert_eq!(severity("5.10.0-26-amd64"), Some(Severity::Fault));
        assert_eq!(severity("5.15.0"), Some(Severity::Note));
        assert_eq!(severity("6.1.0-9-cloud-amd64"), None);
        assert_eq!(severity("5.4"), Some(Severity::Fault));
    }

    #[test]
    fn root_without_a_capability_is_a_fault_and_somebody_else_without_it_is_not() {
        let severity = |missing: Option<Missing>| missing.map(|missing| rights(missing).severity);
        let missing = |root| Some(Missing { capability: "CAP_BPF", root });
        assert_eq!(severity(missing(true)), Some(Severity::Fault));
        assert_eq!(severity(missing(false)), Some(Severity::Note));
        assert_eq!(severity(None), None);
    }

    /// Fails when a name that merely has `bpf` in it counts.
    #[test]
    fn a_kernel_without_the_file_system_is_found() {
        assert!(no_bpffs("nodev\tsysfs\nnodev\tbpf\n\text4\n").is_none());
        assert!(no_bpffs("nodev\tsysfs\nnodev\tbpfx\n").is_some());
    }
}
