//! Whether a driver will run the program itself, and what keeps it from that.
//!
//! The rules are those of the drivers, each named with the function that has it; drivers that refuse
//! nothing are not listed.

use super::{super::finding::Finding, Card};
use ctguard_kernel::net::XdpFeatures;

const GENERIC: &str = "generic XDP is used then, which works as well and costs more";

/// Drivers that take the link down for a while when the first program is attached.
const RESET: [&str; 5] = ["mlx5_core", "i40e", "ixgbe", "ena", "bnxt_en"];

/// The largest MTU with programs that take no fragments, pages being 4 KiB.
const LARGEST: [(&str, u32); 6] = [
    // ENA_XDP_MAX_MTU
    ("ena", 3498),
    // BNXT_MAX_PAGE_MODE_MTU
    ("bnxt_en", 3502),
    // ixgbevf_xdp_setup
    ("ixgbevf", 3050),
    // virtnet_xdp_set
    ("virtio_net", 3506),
    // netvsc_xdp_set
    ("hv_netvsc", 3506),
    // gve_verify_xdp_configuration
    ("gve", 2032),
];

const LRO: &str = "rx-lro";
const GRO_IN_HARDWARE: &str = "rx-gro-hw";

/// Drivers that refuse programs while these offloads are on. Others switch them off by themselves
/// (vmxnet3, `bnxt_en`), as the kernel does for generic XDP (`generic_xdp_install`).
const MERGING: [(&str, &[&str]); 5] = [
    // netvsc_xdp_set
    ("hv_netvsc", &[LRO]),
    // ixgbe_xdp_setup
    ("ixgbe", &[LRO]),
    // mlx5e_xdp_allowed
    ("mlx5_core", &[LRO, GRO_IN_HARDWARE]),
    // gve_verify_xdp_configuration, by the one name or the other
    ("gve", &[LRO, GRO_IN_HARDWARE]),
    // virtnet_xdp_set, and only where it cannot switch it off by itself
    (VIRTIO, &[GRO_IN_HARDWARE]),
];
const VIRTIO: &str = "virtio_net";

pub(super) fn is_possible(features: Option<XdpFeatures>) -> bool {
    features.is_none_or(XdpFeatures::are_native)
}

pub(super) fn generic_only(name: &str, features: Option<XdpFeatures>) -> Option<Finding> {
    (!is_possible(features)).then(|| {
        Finding::note("native", format!("the driver of {name} has no native XDP"))
            .read(format!("netdev: XDP features of {name}"), "no basic")
            .because(GENERIC)
    })
}

/// What makes the driver refuse the program, and what happens when it takes it.
pub(super) fn obstacles(card: &Card) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(mtu(card));
    found.extend(merging(card));
    found.extend(RESET.contains(&card.driver.as_str()).then(|| {
        let Card { driver, name, .. } = card;
        Finding::note(
            "link-reset",
            format!("{driver} takes the link of {name} down when the first program is attached"),
        )
        .because(
            "for up to ten seconds, once: ctguard replaces programs in place afterwards, restarts \
             included",
        )
    }));
    found
}

/// ctguard's program takes fragments, and is attached as one that does first.
fn mtu(card: &Card) -> Option<Finding> {
    let Card { name, driver, mtu, features, .. } = card;
    if features.is_some_and(XdpFeatures::have_fragments) {
        return None;
    }
    let (_, largest) = LARGEST.iter().find(|(of, largest)| of == driver && mtu > largest)?;
    let what =
        format!("{name} has an MTU of {mtu}, and {driver} takes {largest} at most under XDP");
    Some(
        Finding::warning("mtu", what)
            .read(format!("rtnetlink: MTU of {name}"), mtu)
            .because(format!("the driver refuses the program: {GENERIC}"))
            .by_hand(format!("ip link set {name} mtu {largest}")),
    )
}

pub(super) fn merging(card: &Card) -> Option<Finding> {
    let Card { name, driver, offloads, .. } = card;
    let offloads = offloads.as_ref()?;
    let (_, refused) = MERGING.iter().find(|(of, _)| of == driver)?;
    let on = refused.iter().find(|offload| offloads.is_on(offload))?;
    let (fixed, is_virtio) = (offloads.is_fixed(on), driver == VIRTIO);
    if is_virtio && !fixed {
        return None;
    }
    let what = format!("{driver} refuses native XDP while {on} is on, as it is on {name}");
    let read = |finding: Finding| {
        let value = if fixed { "on, and fixed" } else { "on" };
        finding.read(format!("ethtool: {on} of {name}"), value)
    };
    if fixed {
        let whose =
            if is_virtio { "the hypervisor decides it (QEMU: guest_tso4=off,…): " } else { "" };
        return Some(read(Finding::note("merging", what)).because(format!("{whose}{GENERIC}")));
    }
    Some(
        read(Finding::warning("merging", what))
            .because(format!(
                "the card merges packets into larger ones than a program can be given: {GENERIC}"
            ))
            .by_hand(format!("ethtool -K {name} {on} off")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;
    use ctguard_kernel::net::Offloads;

    fn card(driver: &str, mtu: u32) -> Card {
        Card { name: "wan0".to_owned(), driver: driver.to_owned(), mtu, ..Card::default() }
    }

    fn checks(card: &Card) -> Vec<(&'static str, Severity)> {
        obstacles(card).iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_large_mtu_is_found_only_where_the_driver_minds() {
        let [mtu, reset] = [("mtu", Severity::Warning), ("link-reset", Severity::Note)];
        assert_eq!(checks(&card("ena", 9001)), [mtu, reset]);
        assert_eq!(checks(&card("ena", 3498)), [reset]);
        assert_eq!(checks(&card("veth", 9000)), []);
        assert_eq!(checks(&card("virtio_net", 9000)), [mtu]);
    }

    /// Fails when the table is believed before the driver.
    #[test]
    fn a_driver_that_says_it_takes_fragments_takes_any_mtu() {
        let features = Some(XdpFeatures::FRAGMENTS);
        assert_eq!(checks(&Card { features, ..card("virtio_net", 9000) }), []);
        let features = Some(XdpFeatures::NATIVE);
        let found = checks(&Card { features, ..card("virtio_net", 9000) });
        assert_eq!(found, [("mtu", Severity::Warning)]);
    }

    #[test]
    fn generic_xdp_is_foretold_only_by_a_device_that_says_so() {
        assert!(generic_only("wan0", None).is_none(), "an older kernel says nothing");
        assert!(generic_only("wan0", Some(XdpFeatures::NATIVE)).is_none());
        assert!(generic_only("wan0", Some(XdpFeatures::NONE)).is_some());
    }

    #[test]
    fn merged_packets_are_a_warning_where_they_can_be_switched_off() {
        let with = |driver, on: &[&str], changeable: &[&str]| {
            checks(&Card { offloads: Some(Offloads::new(on, changeable)), ..card(driver, 1500) })
        };
        let warning = [("merging", Severity::Warning)];
        assert_eq!(with("hv_netvsc", &[LRO], &[LRO]), warning);
        assert_eq!(with("hv_netvsc", &[], &[LRO]), []);
        assert_eq!(with("hv_netvsc", &[GRO_IN_HARDWARE], &[GRO_IN_HARDWARE]), []);
        assert_eq!(with("gve", &[GRO_IN_HARDWARE], &[GRO_IN_HARDWARE]), warning);
        assert_eq!(with("vmxnet3", &[LRO], &[LRO]), [], "it switches LRO off by itself");
    }

    /// Fails when a virtual machine's usual offloads are called wrong: `virtio_net` switches
    /// off what it may.
    #[test]
    fn virtio_is_refused_only_where_the_hypervisor_fixed_its_offloads() {
        let with = |changeable: &[&str]| {
            let offloads = Some(Offloads::new(&[GRO_IN_HARDWARE], changeable));
            checks(&Card { offloads, ..card(VIRTIO, 1500) })
        };
        assert_eq!(with(&[GRO_IN_HARDWARE]), []);
        assert_eq!(with(&[]), [("merging", Severity::Note)]);
    }
}
