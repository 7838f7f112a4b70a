//! Finds the MAC addresses of frames that this network namespace may track.
//!
//! A promiscuous port also sees its neighbours' frames, and a port of a bridge those that cross it.
//! Where conntrack never sees them, they must not spend the grant. When in doubt, every frame is
//! charged.

use std::fmt::{self, Display, Formatter};

use ctguard_layout::STATIONS;

use super::{
    link::Link,
    resolve::{ETHERNET, TUNNELS},
    surroundings::{BridgedBy, Surroundings},
};

type Mac = [u8; 6];

/// Which frames that arrive on an interface may be tracked in this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stations {
    /// No others arrive.
    All,
    /// Others arrive, and may be tracked too.
    AllOf(AllTracked),
    /// Those to these addresses, and to groups.
    To { addresses: Vec<Mac>, bridge: Option<String> },
}

/// Why frames to other stations may be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllTracked {
    Bridge {
        name: String,
        by: BridgedBy,
    },
    /// A device above takes every frame, or its kind is not known.
    Above {
        name: String,
    },
    /// More addresses than the data path compares.
    Addresses,
}

impl Stations {
    pub fn of(around: &Surroundings, link: &Link) -> Self {
        let is_port = link.master.is_some();
        let received = around.sight.received_by(link.index);
        let mut own = Vec::new();
        match gather(around, link, &mut own) {
            Err(reason) => Self::AllOf(reason),
            Ok(()) if own.len() > STATIONS => Self::AllOf(AllTracked::Addresses),
            Ok(())
                if !is_port
                    && link.promiscuity == 0
                    && received.iter().all(|other| own.contains(other)) =>
            {
                Self::All
            }
            Ok(()) => Self::To { addresses: own, bridge: around.bridge_of(link) },
        }
    }

    /// As in the `interfaces` map.
    pub fn numbers(&self) -> [u64; STATIONS] {
        let Self::To { addresses, .. } = self else { return [0; STATIONS] };
        let number = |mac: &Mac| mac.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let first = addresses.first().map_or(0, number);
        let mut numbers = [first; STATIONS];
        for (place, mac) in numbers.iter_mut().zip(addresses) {
            *place = number(mac);
        }
        numbers
    }
}

/// Adds the addresses of `link` and of what is above it.
fn gather(around: &Surroundings, link: &Link, own: &mut Vec<Mac>) -> Result<(), AllTracked> {
    let unclear = || AllTracked::Above { name: link.name.clone() };
    let address = link.address.ok_or_else(unclear)?;
    if own.len() > STATIONS || link.takes_all {
        return Err(unclear());
    }
    if !own.contains(&address) {
        own.push(address);
    }
    for above in around.links.iter().filter(|above| is_above(above, link)) {
        gather(around, above, own)?;
    }
    let Some(master) = link.master else { return Ok(()) };
    let master = around.links.iter().find(|it| it.index == master).ok_or_else(unclear)?;
    match master.kind.as_deref() {
        Some("vrf") => Ok(()),
        Some("bridge") => match around.bridged_by(master) {
            Some(by) => Err(AllTracked::Bridge { name: master.name.clone(), by }),
            None => gather(around, master, own),
        },
        _ => Err(AllTracked::Above { name: master.name.clone() }),
    }
}

/// A tunnel gets packets that are for this machine, not frames; a veth only names its peer.
fn is_above(above: &Link, link: &Link) -> bool {
    let kind = above.kind.as_deref().unwrap_or_default();
    above.lower == Some(link.index)
        && !above.lower_elsewhere
        && above.hardware == ETHERNET
        && kind != "veth"
        && !TUNNELS.contains(&kind)
}

impl Display for Stations {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("every frame that arrives is for this machine"),
            Self::AllOf(reason) => write!(f, "{reason}, so every frame is limited"),
            Self::To { addresses, bridge } => {
                match bridge {
                    Some(bridge) => write!(f, "netfilter does not see what crosses {bridge}")?,
                    None => f.write_str("frames for other stations arrive as well")?,
                }
                let addresses: Vec<_> = addresses.iter().copied().map(text).collect();
                let addresses = addresses.join(", ");
                write!(f, ", so only frames to this machine ({addresses}) are limited")
            }
        }
    }
}

impl Display for AllTracked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { name, by } => write!(f, "conntrack sees what crosses {name} ({by})"),
            Self::Above { name } => write!(f, "{name} may take frames for any address"),
            Self::Addresses => {
                write!(f, "this machine receives for more than {STATIONS} addresses")
            }
        }
    }
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::{super::surroundings::Sight, *};

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn a_promiscuous_port_receives_for_its_own_address() {
        let port = Link { promiscuity: 1, ..port() };
        assert_eq!(of(&[port]), to(&[OWN]));
        assert_eq!(to(&[OWN]).numbers(), [0x0200_0000_0001; STATIONS]);
        assert_eq!(of(&[self::port()]), Stations::All);
        assert_eq!(Stations::All.numbers(), [0; STATIONS]);
    }

    /// Fails when each packet between a bridge's guests is charged though none is tracked.
    #[test]
    fn a_port_of_a_bridge_that_is_not_tracked_receives_for_the_bridge_and_itself() {
        let port = Link { master: Some(9), ..port() };
        let across = |addresses: &[Mac]| Stations::To {
            addresses: addresses.to_vec(),
            bridge: Some("br0".to_owned()),
        };
        assert_eq!(of(&[port.clone(), bridge()]), across(&[OWN, OTHER]));
        let third = [2, 0, 0, 0, 0, 3];
        let macvlan = above(Some("macvlan"), 9, third);
        assert_eq!(of(&[port, bridge(), macvlan]), across(&[OWN, OTHER, third]));
    }

    #[test]
    fn a_port_of_a_bridge_that_is_tracked_receives_for_all() {
        let port = Link { master: Some(9), ..port() };
        let by_attribute = Link { calls_netfilter: true, ..bridge() };
        let found = of(&[port.clone(), by_attribute]);
        assert!(found.to_string().contains("nf_call_iptables"), "{found}");
        let sight =
            Sight { sysctl: Some("net.bridge.bridge-nf-call-iptables"), ..Sight::default() };
        let around =
            Surroundings { links: vec![port.clone(), bridge()], sight, ..Surroundings::default() };
        assert_eq!(Stations::of(&around, &port).numbers(), [0; STATIONS]);
        let tracking = Some(BridgedBy::Rules { table: "filter".to_owned() });
        let links = vec![port.clone(), bridge()];
        let around = Surroundings { links, tracking, ..Surroundings::default() };
        assert_eq!(Stations::of(&around, &port).numbers(), [0; STATIONS]);
    }

    #[test]
    fn a_vlan_on_the_port_that_is_in_a_bridge_counts_as_the_bridge_does() {
        let port = Link { promiscuity: 1, ..port() };
        let vlan = Link { master: Some(9), ..above(Some("vlan"), 2, OWN) };
        assert_eq!(of(&[port.clone(), vlan.clone(), bridge()]), to(&[OWN, OTHER]));
        let tracked = Link { calls_netfilter: true, ..bridge() };
        assert!(matches!(of(&[port, vlan, tracked]), Stations::AllOf(_)));
    }

    #[test]
    fn a_master_of_another_kind_may_take_any_frame() {
        let port = Link { master: Some(9), ..port() };
        let ovs = Link { kind: Some("openvswitch".to_owned()), ..bridge() };
        assert!(matches!(of(&[port.clone(), ovs]), Stations::AllOf(_)));
        let vrf = Link { kind: Some("vrf".to_owned()), ..bridge() };
        assert_eq!(of(&[port, vrf]), to(&[OWN]));
    }

    #[test]
    fn what_is_above_the_port_receives_for_its_own_addresses() {
        let port = Link { promiscuity: 1, ..port() };
        assert_eq!(of(&[port.clone(), above(Some("vlan"), 2, OWN)]), to(&[OWN]));
        assert_eq!(of(&[port.clone(), above(Some("macvlan"), 2, OTHER)]), to(&[OWN, OTHER]));
        let passthru = Link { takes_all: true, ..above(Some("macvlan"), 2, OWN) };
        assert!(matches!(of(&[port.clone(), passthru]), Stations::AllOf(_)));
        assert_eq!(of(&[port.clone(), above(Some("vxlan"), 2, OTHER)]), to(&[OWN]), "a tunnel");
        let many = (3..8).map(|last| Link {
            index: 20 + u32::from(last),
            ..above(Some("macvlan"), 2, [2, 0, 0, 0, 0, last])
        });
        let links: Vec<_> = [port].into_iter().chain(many).collect();
        assert!(matches!(of(&links), Stations::AllOf(_)), "too many to compare");
    }

    /// Fails when frames for another namespace's macvlan are charged.
    #[test]
    fn an_address_that_only_the_device_knows_is_another_namespaces() {
        let around = |received| Surroundings {
            links: vec![port()],
            sight: Sight { received: vec![(2, received)], ..Sight::default() },
            ..Surroundings::default()
        };
        assert_eq!(Stations::of(&around(OTHER), &port()), to(&[OWN]));
        assert_eq!(Stations::of(&around(OWN), &port()), Stations::All);
    }

    fn of(links: &[Link]) -> Stations {
        let around = Surroundings { links: links.to_vec(), ..Surroundings::default() };
        Stations::of(&around, &links[0])
    }

    fn to(addresses: &[Mac]) -> Stations {
        Stations::To { addresses: addresses.to_vec(), bridge: None }
    }

    fn port() -> Link {
        let name = "wan0".to_owned();
        Link { index: 2, name, address: Some(OWN), hardware: ETHERNET, ..Link::default() }
    }

    fn bridge() -> Link {
        let (name, kind) = ("br0".to_owned(), Some("bridge".to_owned()));
        Link { index: 9, name, kind, address: Some(OTHER), ..port() }
    }

    fn above(kind: Option<&str>, lower: u32, address: Mac) -> Link {
        Link {
            index: 10 + lower,
            kind: kind.map(str::to_owned),
            lower: Some(lower),
            address: Some(address),
            ..port()
        }
    }
}
