//! Whether an interface can be guarded, and how well.

mod machine;
mod program;

use super::finding::{Finding, Findings};
use crate::{
    bpf::Pins,
    host::{Host, Unread},
    net::{Link, Resolved, links, resolve},
};

/// Drivers that take the link down for a while when the first program is attached.
const RESET: [&str; 5] = ["mlx5_core", "i40e", "ixgbe", "ena", "bnxt_en"];
/// Drivers whose largest frame under XDP is smaller, unless the program takes fragments.
const LARGEST: [(&str, u32); 4] =
    [("ena", 3498), ("bnxt_en", 3502), ("ixgbevf", 3050), ("virtio_net", 3506)];

/// An interface that is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) interface: &'a str,
    /// Where its guard would be pinned.
    pub(crate) pins: &'a Pins,
}

/// G, of the list in `docs/doctor.md`.
pub(super) fn check(host: &Host, asked: Asked<'_>, findings: &mut Findings) {
    machine::check(host, asked.pins, findings);
    let Some(links) = findings.read("interface", links_of(host)) else { return };
    match resolve(&links, asked.interface) {
        Ok(Resolved { link, instead_of }) => {
            program::check(&link, asked.pins, findings);
            device(host, &link, instead_of.as_deref(), findings);
        }
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

fn device(host: &Host, link: &Link, instead_of: Option<&str>, findings: &mut Findings) {
    let name = &link.name;
    findings.add(instead_of.map(|kind| {
        Finding::note("interface", format!("the guard belongs on {name}, below this {kind}"))
            .because("ctguard run finds it by itself")
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
