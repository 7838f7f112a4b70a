//! What a stacked device means for XDP programs on the devices below it.

use super::link::Link;

/// A device above `link` that has an XDP program: the kernel then takes none on `link`
/// (`dev_xdp_attach`, `net/core/dev.c`).
pub fn above_with_program<'l>(links: &'l [Link], link: &Link) -> Option<&'l Link> {
    let is_above = |above: &&Link| {
        let is_child =
            above.lower == Some(link.index) && !above.lower_elsewhere && !above.is_a("veth");
        is_child || link.master == Some(above.index)
    };
    links.iter().filter(is_above).find(|above| above.xdp.is_some())
}

/// What of a bond makes it refuse native XDP (`bond_xdp_check`, `drivers/net/bonding/bond_main.c`).
pub fn bond_without_native(link: &Link) -> Option<&'static str> {
    const VLAN_AND_SOURCE: u8 = 5;
    match link.bond? {
        (3, _) => Some("mode broadcast"),
        (5, _) => Some("mode balance-tlb"),
        (6, _) => Some("mode balance-alb"),
        (2 | 4, VLAN_AND_SOURCE) => Some("hash policy vlan+srcmac"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Attached;

    #[test]
    fn a_program_above_is_found_on_a_child_and_on_a_master() {
        let xdp = Some(Attached { native: false, program: 7 });
        let link = Link { index: 2, master: Some(3), ..Link::default() };
        let master = Link { index: 3, name: "br0".to_owned(), ..Link::default() };
        let vlan = Link { index: 4, name: "wan0.5".to_owned(), lower: Some(2), ..Link::default() };
        let found = |links: &[Link]| above_with_program(links, &link).map(|it| it.name.clone());
        assert_eq!(found(&[link.clone(), master.clone(), vlan.clone()]), None);
        assert_eq!(found(&[Link { xdp, ..master.clone() }]).as_deref(), Some("br0"));
        let with = Link { xdp, ..vlan };
        assert_eq!(found(&[master, with.clone()]).as_deref(), Some("wan0.5"));
        assert_eq!(found(&[Link { lower_elsewhere: true, ..with }]), None);
    }

    #[test]
    fn a_bond_that_refuses_native_xdp_is_told_by_its_mode_or_its_hash_policy() {
        let of = |bond| bond_without_native(&Link { bond: Some(bond), ..Link::default() });
        assert_eq!(of((1, 0)), None);
        assert_eq!(of((4, 1)), None);
        assert_eq!(of((6, 0)), Some("mode balance-alb"));
        assert_eq!(of((4, 5)), Some("hash policy vlan+srcmac"));
        assert_eq!(of((0, 5)), None, "the policy matters only where it is used");
        assert_eq!(bond_without_native(&Link::default()), None);
    }
}
