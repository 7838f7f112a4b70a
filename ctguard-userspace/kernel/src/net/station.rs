//! Finds the MAC address to compare frames with, on ports that see frames for other stations.

use super::link::Link;

/// The only MAC address that this machine receives for, as the data path compares it; 0 if there may
/// be others.
///
/// A promiscuous port also sees its neighbours' frames, which must not spend the grant. A port under a
/// bridge, bond, macvlan, or VLAN with its own address receives for several addresses. When in doubt,
/// every frame is charged.
pub fn station(links: &[Link], link: &Link) -> u64 {
    let shared = link.master.is_some()
        || links.iter().any(|above| {
            above.lower == Some(link.index)
                && !above.lower_elsewhere
                && !above.is_a("veth")
                && above.address != link.address
        });
    match link.address {
        Some(address) if link.promiscuity > 0 && !shared => {
            address.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte))
        }
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    const ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_promiscuous_port_receives_for_its_own_address() {
        assert_eq!(station(&[port()], &port()), 0x0200_0000_0001);
    }

    #[test]
    fn a_port_that_is_not_promiscuous_receives_only_its_own() {
        let link = Link { promiscuity: 0, ..port() };
        assert_eq!(station(slice::from_ref(&link), &link), 0);
    }

    #[test]
    fn a_bridge_port_receives_for_all() {
        let link = Link { master: Some(9), ..port() };
        assert_eq!(station(slice::from_ref(&link), &link), 0);
    }

    #[test]
    fn a_macvlan_above_receives_for_another_address() {
        let above = Link {
            index: 3,
            lower: Some(2),
            kind: Some("macvlan".into()),
            address: Some([2, 0, 0, 0, 0, 2]),
            ..Link::default()
        };
        assert_eq!(station(&[port(), above], &port()), 0);
    }

    #[test]
    fn a_vlan_with_the_same_address_changes_nothing() {
        let above = Link { index: 3, lower: Some(2), address: Some(ADDRESS), ..Link::default() };
        assert_eq!(station(&[port(), above], &port()), 0x0200_0000_0001);
    }

    fn port() -> Link {
        Link { index: 2, address: Some(ADDRESS), promiscuity: 1, ..Link::default() }
    }
}
