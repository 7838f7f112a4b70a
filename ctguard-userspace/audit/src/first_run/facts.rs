//! The facts that a first configuration follows from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::routes::routes;
use crate::{
    doctor::{Role, outlook, serves_dns},
    host::{Host, Listener, MAX, Unread, sysctl_path},
};
use ctguard_kernel::net::{Link, resolve};

/// Ports of VPN servers: `wireguard`, `openvpn`, IKE, IKE behind NAT.
const VPN_PORTS: [u16; 4] = [51820, 1194, 500, 4500];
/// Kinds of the interfaces of virtual machines and containers, as ports of a bridge.
const GUEST_KINDS: [&str; 2] = ["veth", "tun"];
/// Of higher ports most belong to clients.
const LAST_WELL_KNOWN: u16 = 10_000;

/// An interface that should be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guardable {
    pub name: String,
    /// Why.
    pub reason: String,
    /// Driver, and whether the program runs in it.
    pub driver: String,
}

/// An interface that is left alone, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub name: String,
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the machine does, in words.
    pub roles: Vec<String>,
    pub interfaces: Vec<Guardable>,
    pub passed: Vec<Passed>,
    /// Ports that others can reach, by protocol.
    pub served: Vec<(&'static str, Vec<u16>)>,
    /// DNS is served over UDP and TCP.
    pub serves_dns: bool,
    /// The most entries of the table; none where conntrack is not loaded, 0 without a limit.
    pub table_max: Option<u64>,
    /// From where the operator is logged in.
    pub clients: BTreeSet<IpAddr>,
}

impl Facts {
    /// Looks at the machine, whose interfaces are `links`.
    ///
    /// # Errors
    /// If a file cannot be read that tells what the machine does.
    pub fn read(host: &Host, links: &[Link], clients: BTreeSet<IpAddr>) -> Result<Self, Unread> {
        let role = Role::guess(host)?;
        let (tcp, udp) = (Listener::read(host)?, Listener::of_udp(host)?);
        let mut facts = Self {
            served: served(&tcp, &udp),
            serves_dns: serves_dns(&tcp, &udp).is_some(),
            table_max: host.number(&sysctl_path(MAX))?,
            clients,
            ..Self::default()
        };
        facts.roles = roles(role, links, &facts);
        facts.choose(role, links, &routes(host)?);
        Ok(facts)
    }

    /// A server faces its clients where its default route is. A machine that forwards is guarded on
    /// all sides, because a host inside can fill the table too.
    fn choose(&mut self, role: Role, links: &[Link], routes: &BTreeMap<String, bool>) {
        let has_default = routes.values().any(|is_default| *is_default);
        for (name, is_default) in routes {
            let Some(link) = links.iter().find(|link| link.is_named(name)) else { continue };
            let reason = match (is_default, role) {
                (true, Role::Server) => "it has the default route: clients come this way",
                (true, Role::Gateway | Role::NatRouter) => {
                    "it has the default route: floods from outside come this way"
                }
                (false, Role::Gateway | Role::NatRouter) => {
                    "packets are forwarded from here: a host inside can fill the table too"
                }
                (false, Role::Server) if has_default => {
                    let reason = "it has no default route, and nothing is forwarded";
                    self.pass(name, reason);
                    continue;
                }
                (false, Role::Server) => "it has a route, and no interface has a default route",
            };
            if is_bridge_of_guests(links, link) {
                self.pass(name, "the bridge of containers or virtual machines of this host");
                continue;
            }
            self.take(links, link, reason);
        }
    }

    fn take(&mut self, links: &[Link], link: &Link, reason: &str) {
        let ports: Vec<_> = links.iter().filter(|port| port.master == Some(link.index)).collect();
        if link.is_a("bridge") && !ports.is_empty() {
            for port in ports.into_iter().filter(|port| !is_guest(port)) {
                self.take(links, port, &format!("a port of {}; {reason}", link.name));
            }
            return;
        }
        match resolve(links, &link.name) {
            Ok(resolved) if self.interfaces.iter().any(|it| it.name == resolved.link.name) => {}
            Ok(resolved) => {
                let of =
                    resolved.instead_of.map(|kind| format!("{} is a {kind} on it; ", link.name));
                self.interfaces.push(Guardable {
                    name: resolved.link.name.clone(),
                    reason: format!("{}{reason}", of.unwrap_or_default()),
                    driver: outlook(links, &resolved.link),
                });
            }
            Err(refusal) => self.pass(&link.name, &refusal.to_string()),
        }
    }

    fn pass(&mut self, name: &str, reason: &str) {
        self.passed.push(Passed { name: name.to_owned(), reason: reason.to_owned() });
    }
}

fn is_guest(port: &Link) -> bool {
    GUEST_KINDS.iter().any(|kind| port.is_a(kind))
}

/// Docker's bridge is there before it has a port.
fn is_bridge_of_guests(links: &[Link], link: &Link) -> bool {
    let mut ports = links.iter().filter(|port| port.master == Some(link.index)).peekable();
    let names = ["docker", "br-", "cni", "podman", "virbr", "lxcbr", "lxdbr", "incusbr"];
    let is_named = names.iter().any(|name| link.name.starts_with(name)) && link.name != "br-lan";
    link.is_a("bridge") && if ports.peek().is_some() { ports.all(is_guest) } else { is_named }
}

fn served(tcp: &[Listener], udp: &[Listener]) -> Vec<(&'static str, Vec<u16>)> {
    let ports = |sockets: &[Listener]| {
        let reachable = sockets.iter().filter(|socket| !socket.is_local());
        let ports: BTreeSet<_> = reachable.map(|socket| socket.at.port()).collect();
        ports
            .into_iter()
            .filter(|port| *port < LAST_WELL_KNOWN || VPN_PORTS.contains(port))
            .collect()
    };
    [("tcp", ports(tcp)), ("udp", ports(udp))].into()
}

fn roles(role: Role, links: &[Link], facts: &Facts) -> Vec<String> {
    let mut roles = vec![
        match role {
            Role::NatRouter => "NAT router",
            Role::Gateway => "gateway without NAT",
            Role::Server => "server",
        }
        .to_owned(),
    ];
    let mut add = |is_it: bool, name: &str| roles.extend(is_it.then(|| name.to_owned()));
    add(
        links.iter().any(|link| is_bridge_of_guests(links, link)),
        "host of containers or virtual machines",
    );
    let has_tunnel = links.iter().any(|link| link.is_a("wireguard"));
    let udp = facts.served.iter().filter(|(protocol, _)| *protocol == "udp");
    let mut ports = udp.flat_map(|(_, ports)| ports);
    add(has_tunnel || ports.any(|port| VPN_PORTS.contains(port)), "VPN server");
    add(facts.serves_dns, "DNS server");
    roles
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";

    pub(crate) fn link(index: u32, name: &str, kind: Option<&str>, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            master,
            hardware: 1,
            ..Link::default()
        }
    }

    pub(crate) fn machine(
        test: &str,
        forwards: bool,
        nat: bool,
        routes: &[(&str, bool)],
    ) -> Machine {
        let machine = Machine::healthy(test);
        let line = |(name, is_default): &(&str, bool)| {
            let [to, mask] = if *is_default { ["00000000"; 2] } else { ["0000A8C0", "0000FFFF"] };
            format!("{name}\t{to}\t0\t0003\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        let lines: String = routes.iter().map(line).collect();
        machine.write("/proc/net/route", &format!("{HEAD}{lines}"));
        machine.write("/proc/sys/net/ipv4/ip_forward", if forwards { "1\n" } else { "0\n" });
        if nat {
            machine.write("/proc/net/ip_tables_names", "filter\nnat\n");
        }
        machine
    }

    pub(crate) fn facts(machine: &Machine, links: &[Link]) -> Facts {
        Facts::read(machine.host(), links, BTreeSet::new()).unwrap()
    }

    fn guarded(facts: &Facts) -> Vec<&str> {
        facts.interfaces.iter().map(|it| &it.name[..]).collect()
    }

    #[test]
    fn a_server_is_guarded_where_its_clients_come_from() {
        let machine = machine("init-server", false, false, &[("eth0", true), ("eth1", false)]);
        let links = [link(2, "eth0", None, None), link(3, "eth1", None, None)];
        let facts = facts(&machine, &links);
        assert_eq!((facts.roles[0].as_str(), guarded(&facts)), ("server", vec!["eth0"]));
        assert_eq!(facts.passed[0].name, "eth1");
        assert_eq!(facts.served, [("tcp", vec![22]), ("udp", vec![])]);
        assert_eq!(facts.table_max, Some(262_144));
    }

    /// Fails when a router's inside is left open, or its bridge or VLAN is named in place of ports.
    #[test]
    fn a_nat_router_is_guarded_on_all_sides_below_vlans_and_bridges() {
        let routes = [("wan0.7", true), ("br-lan", false), ("wg0", false)];
        let machine = machine("init-router", true, true, &routes);
        let vlan = Link { lower: Some(2), ..link(9, "wan0.7", Some("vlan"), None) };
        let links = [
            link(2, "wan0", None, None),
            link(3, "lan0", None, Some(5)),
            link(4, "lan1", None, Some(5)),
            link(5, "br-lan", Some("bridge"), None),
            link(6, "tap0", Some("tun"), Some(5)),
            Link { hardware: 65_534, ..link(7, "wg0", Some("wireguard"), None) },
            vlan,
        ];
        let facts = facts(&machine, &links);
        assert_eq!(guarded(&facts), ["lan0", "lan1", "wan0"]);
        assert!(
            facts.interfaces[2].reason.starts_with("wan0.7 is a vlan on it; it has the default")
        );
        assert!(facts.passed.iter().any(|it| it.name == "wg0" && it.reason.contains("tunnel")));
        assert_eq!(facts.roles, ["NAT router", "VPN server"]);
    }

    #[test]
    fn the_bridges_of_containers_and_virtual_machines_are_left_alone() {
        let routes = [("docker0", false), ("eno1", true), ("virbr0", false)];
        let machine = machine("init-containers", true, true, &routes);
        let links = [
            link(2, "eno1", None, None),
            link(3, "docker0", Some("bridge"), None),
            link(4, "veth12ab", Some("veth"), Some(3)),
            link(5, "virbr0", Some("bridge"), None),
        ];
        let facts = facts(&machine, &links);
        assert_eq!(guarded(&facts), ["eno1"]);
        assert_eq!(facts.roles, ["NAT router", "host of containers or virtual machines"]);
        assert_eq!(facts.passed.len(), 2);
    }

    #[test]
    fn a_dns_server_is_one_that_answers_others_over_both_protocols() {
        let machine = machine("init-dns", false, false, &[("eth0", true)]);
        let links = [link(2, "eth0", None, None)];
        assert!(!facts(&machine, &links).serves_dns);
        let socket = |state| format!("sl local\n 0: 00000000:0035 00000000:0000 {state} 0:0 0\n");
        machine.write("/proc/net/tcp", &socket("0A"));
        machine.write("/proc/net/udp", &socket("07"));
        let facts = facts(&machine, &links);
        assert!(facts.serves_dns);
        assert_eq!(facts.roles, ["server", "DNS server"]);
    }

    #[test]
    fn a_machine_without_routes_has_nothing_to_guard() {
        let machine = machine("init-nothing", false, false, &[]);
        let links = [link(1, "lo", None, None), link(2, "eth0", None, None)];
        assert_eq!(guarded(&facts(&machine, &links)), Vec::<&str>::new());
    }
}
