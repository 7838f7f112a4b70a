//! Whether an interface can be guarded, and how well.

use super::finding::{Finding, Findings};
use crate::{
    host::{Host, Unread, sysctl_path},
    net::{Link, Resolved, links, resolve},
};

/// The first kernels with XDP links that can be replaced in place, and with conntrack's answers to
/// XDP (`bpf_xdp_ct_lookup`).
const NEEDED: (u32, u32) = (5, 15);
const WITH_LOOKUP: (u32, u32) = (5, 18);
const JIT: &str = "net.core.bpf_jit_enable";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Drivers that take the link down for a while when the first program is attached.
const RESET: [&str; 5] = ["mlx5_core", "i40e", "ixgbe", "ena", "bnxt_en"];
/// Drivers whose largest frame under XDP is smaller, unless the program takes fragments.
const LARGEST: [(&str, u32); 4] =
    [("ena", 3498), ("bnxt_en", 3502), ("ixgbevf", 3050), ("virtio_net", 3506)];

/// G, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, interface: &str, findings: &mut Findings) {
    if let Some(Some(release)) =
        findings.read("guard-kernel", host.text("/proc/sys/kernel/osrelease"))
    {
        findings.add(kernel(release.trim()));
    }
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
    findings.add((!host.is_there(BTF)).then(|| {
        Finding::note("guard-btf", "this kernel does not tell its types")
            .read(BTF, "absent")
            .because(
                "conntrack cannot be asked then, and a flow cache tells known flows from new \
                ones",
            )
    }));
    let Some(link) = findings.read("interface", links_of(host)) else { return };
    match resolve(&link, interface) {
        Ok(Resolved { link, instead_of }) => device(host, &link, instead_of.as_deref(), findings),
        Err(refusal) => findings.add([Finding::fault("interface", refusal.to_string())
            .because("ctguard run refuses it for the same reason")]),
    }
}

fn links_of(host: &Host) -> Result<Vec<Link>, Unread> {
    const PLACE: &str = "rtnetlink: a dump of all interfaces";
    if !host.is_this() {
        return Err(Unread::new(PLACE, "only the machine itself can list its interfaces"));
    }
    links().map_err(|error| Unread::new(PLACE, &error))
}

fn kernel(release: &str) -> Option<Finding> {
    let mut numbers = release.split(|digit: char| !digit.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    let version = (next()?, next()?);
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
    Some(finding.read("/proc/sys/kernel/osrelease", release))
}

fn device(host: &Host, link: &Link, instead_of: Option<&str>, findings: &mut Findings) {
    let name = &link.name;
    findings.add(instead_of.map(|kind| {
        Finding::note("interface", format!("the guard belongs on {name}, below this {kind}"))
            .because("ctguard run finds it by itself")
    }));
    findings.add(link.xdp.map(|attached| {
        Finding::note(
            "other-program",
            format!("{name} has an XDP program, number {}", attached.program),
        )
        .because(
            "if it is not ctguard's, ctguard run leaves it alone and refuses to start: \
                `bpftool prog show` names it",
        )
    }));
    let driver =
        std::fs::read_link(host.path(&format!("/sys/class/net/{name}/device/driver"))).ok();
    let driver = driver.as_deref().and_then(std::path::Path::file_name);
    let driver = driver.map(|driver| driver.to_string_lossy().into_owned()).unwrap_or_default();
    findings.add(by_driver(name, &driver, link.mtu));
    if let Some(queues) =
        findings.read("queues", host.names(&format!("/sys/class/net/{name}/queues")))
    {
        let queues = queues.iter().filter(|queue| queue.starts_with("rx-")).count();
        findings.add((queues == 1 && !driver.is_empty()).then(|| {
            Finding::note("queues", format!("{name} has one queue for what arrives"))
                .read(format!("/sys/class/net/{name}/queues"), queues)
                .because(
                    "one CPU takes all of a flood; `ethtool -L` sets more where the card has \
                    them",
                )
        }));
    }
}

fn by_driver(name: &str, driver: &str, mtu: u32) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some((_, largest)) = LARGEST.iter().find(|(of, largest)| *of == driver && mtu > *largest)
    {
        found.push(
            Finding::warning(
                "mtu",
                format!(
                    "{name} has an MTU of {mtu}, and {driver} may take {largest} at most under XDP"
                ),
            )
            .read(format!("/sys/class/net/{name}/mtu"), mtu)
            .because(
                "where the driver does not take programs that accept fragments, generic \
                    XDP is used, which costs more",
            )
            .by_hand(format!("ip link set {name} mtu {largest}")),
        );
    }
    if RESET.contains(&driver) {
        found.push(
            Finding::note(
                "link-reset",
                format!(
                    "{driver} takes the link of {name} down when the first program is attached"
                ),
            )
            .because(
                "for up to ten seconds, once: ctguard replaces programs in place \
                    afterwards, restarts included",
            ),
        );
    }
    found
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
    fn a_large_mtu_is_found_only_where_the_driver_minds() {
        let checks = |driver, mtu| -> Vec<_> {
            by_driver("eth0", driver, mtu).iter().map(|finding| finding.check).collect()
        };
        assert_eq!(checks("ena", 9001), ["mtu", "link-reset"]);
        assert_eq!(checks("ena", 1500), ["link-reset"]);
        assert_eq!(checks("veth", 9000), Vec::<&str>::new());
    }
}
