//! Finds the device to guard when the operator names an interface (see "where to attach" in `docs`).

use thiserror::Error;

use super::link::Link;

/// `ARPHRD_ETHER` and `ARPHRD_PPP` (`linux/if_arp.h`), `ARPHRD_LOOPBACK`.
pub(super) const ETHERNET: u16 = 1;
const PPP: u16 = 512;
const LOOPBACK: u16 = 772;

/// Tunnels that have Ethernet frames.
pub(super) const TUNNELS: [&str; 7] =
    ["vxlan", "geneve", "gretap", "ip6gretap", "erspan", "ip6erspan", "bareudp"];

/// Those that have packets.
const PACKET_TUNNELS: [&str; 10] =
    ["wireguard", "tun", "ipip", "sit", "gre", "ip6tnl", "ip6gre", "xfrm", "vti", "vti6"];

/// How many interfaces may be stacked on the device.
const MAXIMUM_DEPTH: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub link: Link,
    /// Kind of the interface that the operator named, if `link` is another.
    pub instead_of: Option<String>,
}

/// Why an interface cannot be guarded, and what to do instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("there is no interface {name}; there are {}", .existing.join(", "))]
    Unknown { name: String, existing: Vec<String> },
    #[error("{name} is the loopback device, which no flood reaches")]
    Loopback { name: String },
    #[error("{name} is a {kind}, which XDP guards badly; guard its ports: {}", options(.ports))]
    HasPorts { name: String, kind: &'static str, ports: Vec<String> },
    #[error("{name} is a member of {master}; guard that: -i {master}")]
    Member { name: String, master: String },
    #[error(
        "{name} is a PPP link without Ethernet frames; over PPPoE, guard the Ethernet device \
         under it (ctguard reads PPPoE)"
    )]
    Ppp { name: String },
    #[error(
        "{name} is a tunnel ({kind}): XDP does not see single flows in it, and the device below sees one \
         flow; limit what comes out of it by nftables on {name} (docs/table-full.md, Tunnels)"
    )]
    Tunnel { name: String, kind: String },
    #[error(
        "{name} is the CPU port of a switch (DSA), whose frames have the switch's tags; guard the \
         switch's ports: {}", options(.ports)
    )]
    Switch { name: String, ports: Vec<String> },
    #[error("{name} has no Ethernet frames ({kind}); guard the device that its packets arrive on")]
    NoEthernet { name: String, kind: String },
    #[error(
        "{name} lies on a device of another network namespace, where a guard would watch another \
         table; connect this namespace by a bridge, or limit by nftables on {name} \
         (docs/containers.md)"
    )]
    LowerElsewhere { name: String },
}

pub fn resolve(links: &[Link], name: &str) -> Result<Resolved, Refusal> {
    let named = links.iter().find(|link| link.is_named(name)).ok_or_else(|| Refusal::Unknown {
        name: name.to_owned(),
        existing: names(links, |link| link.hardware != LOOPBACK),
    })?;
    let mut link = named;
    for _ in 0..MAXIMUM_DEPTH {
        match lower(links, link)? {
            Some(below) => link = below,
            None => break,
        }
    }
    check(links, link)?;
    let instead_of = (link.index != named.index).then(|| named.kind.clone().unwrap_or_default());
    Ok(Resolved { link: link.clone(), instead_of })
}

/// Whether `link` is a bond without members. While the program is on one, the kernel takes no member whose
/// driver lacks XDP (`bond_enslave`, `drivers/net/bonding/bond_main.c`).
pub fn lacks_members(links: &[Link], link: &Link) -> bool {
    link.is_a("bond") && links.iter().all(|it| it.master != Some(link.index))
}

/// The device under a VLAN, macvlan or ipvlan.
fn lower<'a>(links: &'a [Link], link: &Link) -> Result<Option<&'a Link>, Refusal> {
    const CHILDREN: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];
    if !CHILDREN.iter().any(|kind| link.is_a(kind)) {
        return Ok(None);
    }
    let below = links
        .iter()
        .find(|below| Some(below.index) == link.lower)
        .filter(|_| !link.lower_elsewhere);
    below.map(Some).ok_or_else(|| Refusal::LowerElsewhere { name: link.name.clone() })
}

fn check(links: &[Link], link: &Link) -> Result<(), Refusal> {
    let name = link.name.clone();
    let kind = link.kind.clone();
    if link.hardware == LOOPBACK {
        return Err(Refusal::Loopback { name });
    }
    if link.hardware == PPP || link.is_a("ppp") {
        return Err(Refusal::Ppp { name });
    }
    for (of_kind, kind) in [("bridge", "bridge"), ("vrf", "VRF")] {
        if link.is_a(of_kind) {
            let ports = names(links, |port| port.master == Some(link.index));
            return Err(Refusal::HasPorts { name, kind, ports });
        }
    }
    let is_tunnel =
        |kind: &String| TUNNELS.contains(&kind.as_str()) || PACKET_TUNNELS.contains(&kind.as_str());
    if let Some(kind) = kind.clone().filter(is_tunnel) {
        // A tap is of the kind of a tun, and has frames.
        if link.hardware != ETHERNET || kind != "tun" {
            return Err(Refusal::Tunnel { name, kind });
        }
    }
    if link.hardware != ETHERNET {
        let kind = kind.unwrap_or_else(|| format!("hardware type {}", link.hardware));
        return Err(Refusal::NoEthernet { name, kind });
    }
    let master = links.iter().find(|master| Some(master.index) == link.master);
    // Hardware has members too: hv_netvsc and net_failover, whose virtual function may go.
    let has_members =
        |master: &&Link| master.is_a("bond") || master.is_a("team") || master.kind.is_none();
    if let Some(master) = master.filter(has_members) {
        return Err(Refusal::Member { name, master: master.name.clone() });
    }
    let ports = names(links, |port| is_port_of_switch(port, link));
    if !ports.is_empty() {
        return Err(Refusal::Switch { name, ports });
    }
    Ok(())
}

/// Ports of switches have no kind before Linux 6.1. No other hardware is on a device.
fn is_port_of_switch(port: &Link, conduit: &Link) -> bool {
    port.lower == Some(conduit.index)
        && port.index != conduit.index
        && !port.lower_elsewhere
        && port.hardware == ETHERNET
        && (port.is_a("dsa") || port.kind.is_none())
}

fn names(links: &[Link], is_wanted: impl Fn(&Link) -> bool) -> Vec<String> {
    links.iter().filter(|link| is_wanted(link)).map(|link| link.name.clone()).collect()
}

fn options(ports: &[String]) -> String {
    if ports.is_empty() {
        return "it has none now".to_owned();
    }
    ports.iter().map(|port| format!("-i {port}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_physical_device_is_guarded_itself() {
        let resolved = resolve(&table(), "wan0").unwrap();
        assert_eq!((resolved.link.name.as_str(), resolved.instead_of), ("wan0", None));
    }

    #[test]
    fn an_alternative_name_is_a_name() {
        assert_eq!(resolve(&table(), "enp3s0").unwrap().link.name, "wan0");
    }

    #[test]
    fn a_vlan_child_is_guarded_at_its_parent() {
        let resolved = resolve(&table(), "wan0.100").unwrap();
        assert_eq!(resolved.link.name, "wan0");
        assert_eq!(resolved.instead_of.as_deref(), Some("vlan"));
    }

    #[test]
    fn a_macvlan_on_a_vlan_goes_down_twice() {
        assert_eq!(resolve(&table(), "mac0").unwrap().link.name, "wan0");
    }

    #[test]
    fn a_vlan_child_of_another_namespace_is_refused() {
        let refusal = resolve(&table(), "moved").unwrap_err();
        assert_eq!(refusal, Refusal::LowerElsewhere { name: "moved".into() });
    }

    #[test]
    fn a_bridge_names_its_ports() {
        let refusal = resolve(&table(), "br0").unwrap_err().to_string();
        assert!(refusal.ends_with("guard its ports: -i lan1 -i lan2"), "{refusal}");
    }

    #[test]
    fn a_bridge_port_is_guarded_itself() {
        assert_eq!(resolve(&table(), "lan1").unwrap().link.name, "lan1");
    }

    #[test]
    fn a_bond_is_guarded_and_its_member_is_not() {
        assert_eq!(resolve(&table(), "bond0").unwrap().link.name, "bond0");
        let refusal = resolve(&table(), "slave0").unwrap_err();
        assert!(refusal.to_string().ends_with("-i bond0"), "{refusal}");
    }

    /// Fails when the program on a bond keeps the network from coming up.
    #[test]
    fn a_bond_is_not_ready_until_it_has_a_member() {
        let mut links = table();
        assert!(!lacks_members(&links, &links[8]));
        links.retain(|link| link.name != "slave0");
        assert!(lacks_members(&links, &links[8]));
        assert!(!lacks_members(&links, &links[1]), "hardware has none");
    }

    /// Fails when a guard is put on a virtual function, which goes when the machine migrates.
    #[test]
    fn a_virtual_function_under_a_synthetic_device_names_that_device() {
        let mut links = table();
        links.push(Link { index: 20, name: "eth0".into(), hardware: ETHERNET, ..Link::default() });
        let vf = Link { index: 21, name: "eth1".into(), master: Some(20), ..links[1].clone() };
        links.push(vf);
        let refusal = resolve(&links, "eth1").unwrap_err().to_string();
        assert!(refusal.ends_with("-i eth0"), "{refusal}");
        assert_eq!(resolve(&links, "eth0").unwrap().link.name, "eth0");
    }

    /// Fails when a guard is put where frames have a switch's tags, and nothing is limited.
    #[test]
    fn the_cpu_port_of_a_switch_names_the_switchs_ports() {
        for kind in [Some("dsa"), None] {
            let mut links = table();
            let port = |index, name: &str| Link {
                index,
                name: name.into(),
                lower: Some(2),
                kind: kind.map(str::to_owned),
                hardware: ETHERNET,
                ..Link::default()
            };
            links.extend([port(20, "swp1"), port(21, "swp2")]);
            let refusal = resolve(&links, "wan0").unwrap_err().to_string();
            assert!(refusal.ends_with("ports: -i swp1 -i swp2"), "{refusal}");
            assert_eq!(resolve(&links, "swp1").unwrap().link.name, "swp1");
        }
    }

    #[test]
    fn a_tunnel_says_what_can_limit_it_and_a_tap_is_guarded_itself() {
        let mut links = table();
        let tun = |index, name: &str, hardware| Link {
            index,
            name: name.into(),
            kind: Some("tun".into()),
            hardware,
            ..Link::default()
        };
        links.extend([tun(20, "tun0", 65534), tun(21, "tap0", ETHERNET)]);
        for name in ["wg0", "tun0"] {
            let refusal = resolve(&links, name).unwrap_err().to_string();
            assert!(refusal.contains(&format!("by nftables on {name}")), "{refusal}");
        }
        assert_eq!(resolve(&links, "tap0").unwrap().link.name, "tap0");
    }

    #[test]
    fn ppp_says_to_guard_the_ethernet_device() {
        let refusal = resolve(&table(), "ppp0").unwrap_err().to_string();
        assert!(refusal.contains("guard the Ethernet device under it"), "{refusal}");
    }

    #[test]
    fn what_has_no_ethernet_frames_is_refused_by_its_kind() {
        let refusal = resolve(&table(), "wg0").unwrap_err().to_string();
        assert!(refusal.contains("wireguard"), "{refusal}");
    }

    #[test]
    fn a_veth_is_not_taken_for_a_child_of_its_peer() {
        assert_eq!(resolve(&table(), "veth0").unwrap().link.name, "veth0");
    }

    #[test]
    fn an_unknown_name_lists_what_there_is_but_not_the_loopback() {
        let refusal = resolve(&table(), "wan9").unwrap_err().to_string();
        assert!(refusal.starts_with("there is no interface wan9; there are wan0, "), "{refusal}");
        assert!(!refusal.contains("lo,"), "{refusal}");
        assert!(matches!(resolve(&table(), "lo").unwrap_err(), Refusal::Loopback { .. }));
    }

    fn table() -> Vec<Link> {
        let link = |index, name: &str, kind: &str| Link {
            index,
            name: name.into(),
            kind: (!kind.is_empty()).then(|| kind.into()),
            hardware: ETHERNET,
            ..Link::default()
        };
        let on = |lower, link: Link| Link { lower: Some(lower), ..link };
        let of = |master, link: Link| Link { master: Some(master), ..link };
        let hardware = |hardware, link: Link| Link { hardware, ..link };
        vec![
            hardware(LOOPBACK, link(1, "lo", "")),
            Link { other_names: vec!["enp3s0".into()], ..link(2, "wan0", "") },
            on(2, link(3, "wan0.100", "vlan")),
            on(3, link(4, "mac0", "macvlan")),
            Link { lower_elsewhere: true, ..on(2, link(5, "moved", "vlan")) },
            link(6, "br0", "bridge"),
            of(6, link(7, "lan1", "")),
            of(6, link(8, "lan2", "")),
            link(9, "bond0", "bond"),
            of(9, link(10, "slave0", "")),
            hardware(PPP, link(11, "ppp0", "ppp")),
            hardware(65534, link(12, "wg0", "wireguard")),
            on(2, link(13, "veth0", "veth")),
        ]
    }
}
