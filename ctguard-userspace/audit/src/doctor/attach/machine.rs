//! What a guard needs of kernel and process, whatever the interface.

use super::super::finding::{Finding, Findings};
use crate::host::{Host, sysctl_path};
use ctguard_kernel::{
    bpf::{Pins, check_lookup, check_pins},
    privileges::{self, Missing},
};

/// The first kernels with XDP links that can be replaced in place, and with conntrack's answers to
/// XDP (`bpf_xdp_ct_lookup`).
const NEEDED: (u32, u32) = (5, 15);
const WITH_LOOKUP: (u32, u32) = (5, 18);
const RELEASE: &str = "/proc/sys/kernel/osrelease";
const JIT: &str = "net.core.bpf_jit_enable";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const TYPES: &str = "/sys/kernel/btf/vmlinux";
const FILE_SYSTEMS: &str = "/proc/filesystems";

pub(super) fn check(host: &Host, pins: &Pins, findings: &mut Findings) {
    let release = findings.read("guard-kernel", host.text(RELEASE)).flatten().unwrap_or_default();
    let release = release.trim();
    findings.add(kernel(release));
    if let Some(Some(jit)) = findings.read("guard-jit", host.number(&sysctl_path(JIT))) {
        findings.add((jit == 0).then(|| {
            Finding::warning("guard-jit", "BPF programs are interpreted")
                .read(sysctl_path(JIT), jit)
                .because("each packet costs several times as much")
                .by_hand(format!("sysctl -w {JIT}=1"))
        }));
    }
    if let Some(Some(lockdown)) = findings.read("lockdown", host.text(LOCKDOWN)) {
        findings.add(lockdown.contains("[confidentiality]").then(|| {
            Finding::warning("lockdown", "the kernel is locked down for confidentiality")
                .read(LOCKDOWN, lockdown.trim())
                .because("it may refuse BPF programs")
        }));
    }
    findings.add(
        version(release).is_some_and(|found| found >= WITH_LOOKUP).then(|| lookup(host)).flatten(),
    );
    if let Some(Some(systems)) = findings.read("bpffs", host.text(FILE_SYSTEMS)) {
        findings.add(no_bpffs(&systems));
    }
    // What follows is about this process.
    if host.is_this() {
        findings.add(rights(privileges::missing()));
        findings.add(check_pins(pins).err().map(|error| {
            Finding::fault("bpffs", "there is no place for the guard's pins")
                .read(pins.path().display().to_string(), error)
                .because(
                    "a guard is pinned on a bpffs of its own, which ctguard run mounts: none at \
                     /sys/fs/bpf is needed",
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
    let finding = if version < NEEDED {
        Finding::fault("guard-kernel", format!("Linux {release} is too old for the guard")).because(
            "it needs 5.15 or newer; until then, see `docs/table-full.md` for rules of \
                nftables that do part of it",
        )
    } else if version < WITH_LOOKUP {
        Finding::note(
            "guard-kernel",
            format!("Linux {release} does not answer XDP about its flows"),
        )
        .because(
            "from 5.18 on conntrack itself is asked; before, a flow cache tells known \
                flows from new ones",
        )
    } else {
        return None;
    };
    Some(finding.read(RELEASE, release))
}

/// Whether a kernel that could answer about its flows does.
fn lookup(host: &Host) -> Option<Finding> {
    let why = if host.is_this() {
        check_lookup().err()?.to_string()
    } else if host.is_there(TYPES) {
        return None;
    } else {
        "absent".to_owned()
    };
    Some(
        Finding::note("guard-btf", "conntrack cannot be asked about its flows")
            .read(TYPES, why)
            .because("a flow cache tells known flows from new ones then"),
    )
}

/// `CONFIG_BPF_SYSCALL` brings the file system with it (`kernel/bpf/inode.c`).
fn no_bpffs(systems: &str) -> Option<Finding> {
    let is_there = systems.lines().any(|line| line.split_whitespace().last() == Some("bpf"));
    (!is_there).then(|| {
        Finding::fault("bpffs", "this kernel was built without the BPF file system")
            .read(FILE_SYSTEMS, "no bpf")
            .because("it was built without CONFIG_BPF_SYSCALL, and loads no guard")
    })
}

/// What `ctguard run` asks for first.
fn rights(missing: Option<Missing>) -> Option<Finding> {
    let Missing { capability, root } = missing?;
    let finding = if root {
        Finding::fault("rights", format!("root has no {capability} here"))
            .because("ctguard run refuses to start: a container, or a service's unit, took it away")
    } else {
        Finding::note(
            "rights",
            format!("ctguard run needs more than this process has: {capability}"),
        )
        .because("run it as root, or with CAP_NET_ADMIN and CAP_BPF or CAP_SYS_ADMIN")
    };
    Some(finding.read("/proc/self/status", format!("CapEff without {capability}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

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
        let severity = |missing| rights(missing).map(|finding| finding.severity);
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
