//! Whether the driver will run the program (native XDP), and what may prevent it.
//!
//! Each rule names the driver's function that has it; drivers that refuse nothing are not listed.

use super::{super::finding::Finding, card::Card};
use ctguard_kernel::net::{Link, XdpFeatures, bond_without_native};

const GENERIC: &str = "generic XDP is used instead, which protects as well at more CPU time";

/// Drivers that reset the link when the first program is attached.
const RESET: [&str; 10] = [
    "mlx5_core",
    "i40e",
    "ixgbe",
    "ena",
    "bnxt_en",
    "igb",      // igb_xdp_setup
    "igc",      // igc_xdp_set_prog
    "atlantic", // aq_xdp_setup
    "st_gmac",  // stmmac_xdp_set_prog
    "st_xgmac",
];

/// The largest MTU for XDP without fragments, with pages of 4 KiB.
const LARGEST: [(&str, u32); 12] = [
    ("ena", 3498),     // ENA_XDP_MAX_MTU
    ("bnxt_en", 3502), // BNXT_MAX_PAGE_MODE_MTU
    ("ixgbe", 3050),   // ixgbe_xdp_setup
    ("ixgbevf", 3050), // ixgbevf_xdp_setup
    ("igb", 3046),     // igb_xdp_setup
    ("igc", 1500),     // igc_xdp_set_prog
    ("st_gmac", 1500), // stmmac_xdp_set_prog
    ("st_xgmac", 1500),
    ("atlantic", 2048),   // aq_xdp_setup
    ("virtio_net", 3506), // virtnet_xdp_set
    ("hv_netvsc", 3506),  // netvsc_xdp_set
    ("gve", 2032),        // gve_verify_xdp_configuration
];

const LRO: &str = "rx-lro";
const GRO_IN_HARDWARE: &str = "rx-gro-hw";

/// Drivers that refuse XDP while one of these offloads is on. Others switch them off (vmxnet3,
/// `bnxt_en`), as the kernel does for generic XDP (`generic_xdp_install`).
const MERGING: [(&str, &[&str]); 5] = [
    ("hv_netvsc", &[LRO]),                  // netvsc_xdp_set
    ("ixgbe", &[LRO]),                      // ixgbe_xdp_setup
    ("mlx5_core", &[LRO, GRO_IN_HARDWARE]), // mlx5e_xdp_allowed
    ("gve", &[LRO, GRO_IN_HARDWARE]), // gve_verify_xdp_configuration, by the one name or the other
    (VIRTIO, &[GRO_IN_HARDWARE]), // virtnet_xdp_set, and only where it cannot switch it off by itself
];
const VIRTIO: &str = "virtio_net";

pub(super) fn is_possible(features: Option<XdpFeatures>) -> bool {
    features.is_none_or(XdpFeatures::are_native)
}

pub(super) fn generic_only(name: &str, features: Option<XdpFeatures>) -> Option<Finding> {
    Finding::note("native", format!("the driver of {name} does not support native XDP"))
        .read(format!("netdev: XDP features of {name}"), "no basic")
        .because(GENERIC)
        .when(!is_possible(features))
}

pub(super) fn bond(link: &Link) -> Option<Finding> {
    let (name, what) = (&link.name, bond_without_native(link)?);
    let finding = Finding::note("native", format!("the bond {name} refuses native XDP in {what}"))
        .read(format!("rtnetlink: bond {name}"), what)
        .because(format!(
            "a bond supports it in balance-rr, active-backup, balance-xor and 802.3ad: {GENERIC}"
        ));
    Some(finding)
}

pub(super) fn obstacles(card: &Card) -> Vec<Finding> {
    let Card { driver, name, .. } = card;
    let what = format!("{driver} resets the link of {name} when the first XDP program is attached");
    let reset = Finding::note("link-reset", what).because(
        "the link is down for up to ten seconds, once; later starts replace the program in place",
    );
    let resets = RESET.contains(&driver.as_str());
    [mtu(card), merging(card), reset.when(resets)].into_iter().flatten().collect()
}

/// Fragments lift the limit: ctguard's program supports them.
fn mtu(card: &Card) -> Option<Finding> {
    let Card { name, driver, mtu, features, .. } = card;
    let (_, largest) = LARGEST.iter().find(|(of, largest)| of == driver && mtu > largest)?;
    let what = format!("{name} has an MTU of {mtu}; {driver} supports XDP up to {largest}");
    Finding::warning("mtu", what)
        .read(format!("rtnetlink: MTU of {name}"), mtu)
        .because(format!("the driver refuses the program: {GENERIC}"))
        .by_hand(format!("ip link set {name} mtu {largest}"))
        .when(!features.is_some_and(XdpFeatures::have_fragments))
}

pub(super) fn merging(card: &Card) -> Option<Finding> {
    let Card { name, driver, offloads, .. } = card;
    let offloads = offloads.as_ref()?;
    let (_, refused) = MERGING.iter().find(|(of, _)| of == driver)?;
    let on = refused.iter().find(|offload| offloads.is_on(offload))?;
    let (place, is_virtio) = (format!("ethtool: {on} of {name}"), driver == VIRTIO);
    let what = format!("{on} is on for {name}, and {driver} then refuses native XDP");
    if offloads.is_fixed(on) {
        let whose =
            if is_virtio { "the hypervisor sets it (QEMU: guest_tso4=off,…); " } else { "" };
        let finding = Finding::note("merging", what).read(place, "on, and fixed");
        return Some(finding.because(format!("{whose}{GENERIC}")));
    }
    Finding::warning("merging", what)
        .read(place, "on")
        .because(format!("the card merges packets into larger ones than XDP can handle: {GENERIC}"))
        .by_hand(format!("ethtool -K {name} {on} off"))
        .when(!is_virtio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;
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

    /// Fails when a card of a small machine loses its link, or refuses the program, without a warning.
    #[test]
    fn what_igb_igc_atlantic_and_stmmac_do_is_foretold() {
        let [mtu, reset] = [("mtu", Severity::Warning), ("link-reset", Severity::Note)];
        for (driver, large) in [("igb", 9000), ("igc", 1504), ("st_gmac", 2000), ("atlantic", 9000)]
        {
            assert_eq!(checks(&card(driver, 1500)), [reset], "{driver}");
            assert_eq!(checks(&card(driver, large)), [mtu, reset], "{driver}");
        }
        assert_eq!(checks(&card("ixgbe", 3051)), [mtu, reset]);
    }

    #[test]
    fn a_bond_in_a_mode_without_native_xdp_is_told_by_its_mode() {
        let of = |mode| {
            bond(&Link { name: "bond0".to_owned(), bond: Some((mode, 0)), ..Link::default() })
        };
        assert!(of(6).unwrap().what.contains("mode balance-alb"));
        assert!(of(1).is_none());
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
