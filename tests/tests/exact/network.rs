//! Where the packets go: outside ── wan0, a guarded NAT router, lan0 ── inside. Neither end has a
//! stack that would answer, so nothing moves but what the test sends and what the router says.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::AtomicBool,
};

use anyhow::{Context as _, Result};
use ctguard_tests::{
    conntrack::Tuple,
    daemon::Daemon,
    exec, lab,
    netns::Namespace,
    product::{OUTSIDE, Site, WAN},
    sysctl::HostSysctl,
    wire::Wire,
};

use crate::{
    explain::Detection,
    frame::{Link, SCTP, TCP, UDP, UDPLITE},
};

const LAN: &str = "lan0";
const INSIDE: &str = "in0";
/// More than the packets of a run make, so that no grant is ever spent.
const TABLE: &str = "1000000";

/// Frames from outside to the router.
pub(crate) const TO_WAN: Link =
    Link { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };
/// Frames from inside to the router.
pub(crate) const TO_LAN: Link =
    Link { source: [2, 0, 0, 0, 0, 4], destination: [2, 0, 0, 0, 0, 3] };

/// The router's outer address, behind which [`MASQUERADED`] hides.
pub(crate) const ROUTER: IpAddr = v4(198, 51, 100, 1);
pub(crate) const ROUTER6: IpAddr = v6(0x2001_0db8_0001_0000, 1);
/// The first of eight addresses behind which [`POOLED`] hides. The router has no route to them but
/// the one to the outside.
pub(crate) const POOL: IpAddr = v4(203, 0, 113, 1);
pub(crate) const POOL6: IpAddr = v6(0x2001_0db8_0002_0000, 1);
/// Hosts inside, each the first of eight.
pub(crate) const MASQUERADED: IpAddr = v4(10, 0, 0, 1);
pub(crate) const POOLED: IpAddr = v4(10, 0, 128, 1);
pub(crate) const ROUTED: IpAddr = v4(192, 0, 2, 1);
pub(crate) const MASQUERADED6: IpAddr = v6(0xfd00_0000_0000_0000, 1);
pub(crate) const POOLED6: IpAddr = v6(0xfd00_0000_0000_0001, 1);
pub(crate) const ROUTED6: IpAddr = v6(0x2001_0db8_0003_0000, 1);
/// Who the marks go to and come from.
pub(crate) const MARKED_INSIDE: IpAddr = v4(192, 0, 2, 254);
pub(crate) const MARKED_OUTSIDE: IpAddr = v4(198, 19, 255, 254);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(network: u64, host: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits((network as u128) << 64 | host as u128))
}

/// Whether a host inside has this address.
pub(crate) fn is_inside(address: IpAddr) -> bool {
    is_translated(address) || [ROUTED, ROUTED6].into_iter().any(|host| are_near(host, address))
}

/// Whether the router translates what this address sends out.
pub(crate) fn is_translated(address: IpAddr) -> bool {
    let hosts = [MASQUERADED, POOLED, MASQUERADED6, POOLED6];
    let in_prefix =
        matches!(address, IpAddr::V4(address) if address.octets().starts_with(&[10, 0]));
    in_prefix || hosts.into_iter().any(|host| are_near(host, address))
}

/// Whether the router sends what came from outside for this address out again.
pub(crate) fn goes_out_again(address: IpAddr) -> bool {
    !is_inside(address) && ![ROUTER, ROUTER6].contains(&address)
}

/// The tuple of a packet from outside behind the port forwards of [`RULES`].
pub(crate) fn forwarded(tuple: Tuple) -> Tuple {
    let six = tuple.to == ROUTER6;
    let (host, to_port) = match (tuple.protocol, tuple.to_port) {
        (TCP, 80) if six => (v6(0xfd00_0000_0000_0000, 0x80), 80),
        (UDP, 53) if six => (v6(0xfd00_0000_0000_0000, 0x53), 53),
        (TCP | SCTP, 80) if tuple.to.is_ipv4() => (v4(10, 0, 0, 80), 80),
        (TCP, 8080) if tuple.to.is_ipv4() => (v4(10, 0, 0, 81), 80),
        (UDP | UDPLITE, 53) if tuple.to.is_ipv4() => (v4(10, 0, 0, 53), 53),
        _ => return tuple,
    };
    Tuple { to: host, to_port, ..tuple }
}

/// One /24, or one /64.
fn are_near(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.to_bits() >> 8 == other.to_bits() >> 8,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() >> 64 == other.to_bits() >> 64,
        _ => false,
    }
}

/// The guarded router and its two sides.
pub(crate) struct Network {
    // Dropped first, before its namespaces.
    _daemon: Daemon,
    pub(crate) outer: Wire,
    pub(crate) inner: Wire,
    _inside: Namespace,
    pub(crate) site: Site,
    _max: HostSysctl,
    // Dropped last: other labs change the table's size too.
    _lock: std::fs::File,
}

impl Network {
    /// Builds it and guards `wan0`, dry.
    pub(crate) fn guarded(detection: Detection) -> Result<Self> {
        let lock = lab::lock(&|_| {}, &AtomicBool::new(false))?;
        let max = HostSysctl::set("net.netfilter.nf_conntrack_max", TABLE)?;
        let site = Site::build()?;
        let inside = Namespace::create("inside")?;
        for namespace in [site.outside(), &*inside] {
            namespace.sysctl(&[
                ("net.ipv6.conf.all.disable_ipv6", "1"),
                ("net.ipv6.conf.default.disable_ipv6", "1"),
            ])?;
        }
        let router = site.guarded();
        router.sysctl(&ROUTER_SYSCTLS)?;
        inside.ip(&[
            format!("link add {INSIDE} type veth peer name {LAN} netns {}", router.name()),
            format!("link set {INSIDE} address {} up", text(TO_LAN.source)),
        ])?;
        site.outside().ip(&[format!("link set {OUTSIDE} address {}", text(TO_WAN.source))])?;
        router.ip(&router_lines())?;
        // Held back to be merged, a packet could be overtaken by its mark.
        exec::run(router.command("ethtool").args(["-K", WAN, "gro", "off"]))?;
        exec::run_with_input(router.command("nft").args(["-f", "-"]), RULES)
            .context("cannot load the router's rules")?;
        router.sysctl(&TIMEOUTS)?;

        let mut command = vec!["run", "-i", WAN, "--set", "dry-run=on"];
        command.extend(CEILINGS.iter().flat_map(|ceiling| ["--set", *ceiling]));
        command.extend(detection.arguments());
        let daemon = site.start(&command)?;
        let outer = site.wire()?;
        let inner = Wire::open(&inside, INSIDE)?;
        Ok(Self { _daemon: daemon, outer, inner, _inside: inside, site, _max: max, _lock: lock })
    }
}

/// No source is ever refused: what is refused is forgotten, and charged again.
const CEILINGS: [&str; 6] = [
    "source.tcp.rate=1000000/s",
    "source.tcp.burst=1000000",
    "source.udp.rate=1000000/s",
    "source.udp.burst=1000000",
    "source.other.rate=1000000/s",
    "source.other.burst=1000000",
];

const ROUTER_SYSCTLS: [(&str, &str); 8] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
];

/// So short that flows end while the test runs.
const TIMEOUTS: [(&str, &str); 17] = [
    ("net.ipv4.ipfrag_time", "2"),
    ("net.netfilter.nf_conntrack_frag6_timeout", "2"),
    ("net.netfilter.nf_conntrack_udp_timeout", "2"),
    ("net.netfilter.nf_conntrack_udp_timeout_stream", "3"),
    ("net.netfilter.nf_conntrack_generic_timeout", "2"),
    ("net.netfilter.nf_conntrack_icmp_timeout", "2"),
    ("net.netfilter.nf_conntrack_icmpv6_timeout", "2"),
    ("net.netfilter.nf_conntrack_gre_timeout", "2"),
    ("net.netfilter.nf_conntrack_gre_timeout_stream", "3"),
    ("net.netfilter.nf_conntrack_tcp_timeout_syn_sent", "3"),
    ("net.netfilter.nf_conntrack_tcp_timeout_syn_recv", "2"),
    ("net.netfilter.nf_conntrack_tcp_timeout_established", "4"),
    ("net.netfilter.nf_conntrack_tcp_timeout_fin_wait", "2"),
    ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "2"),
    ("net.netfilter.nf_conntrack_tcp_timeout_last_ack", "2"),
    ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "2"),
    ("net.netfilter.nf_conntrack_tcp_timeout_close", "2"),
];

fn router_lines() -> Vec<String> {
    let (wan, lan) = (text(TO_WAN.destination), text(TO_LAN.destination));
    let (outer, inner) = (text(TO_WAN.source), text(TO_LAN.source));
    let mut lines = vec![
        format!("link set {WAN} address {wan}"),
        format!("link set {LAN} address {lan} up"),
        format!("address add {ROUTER}/30 dev {WAN}"),
        format!("address add {ROUTER6}/64 dev {WAN} nodad"),
        format!("address add 10.255.0.1/30 dev {LAN}"),
        format!("address add 2001:db8:ff::1/64 dev {LAN} nodad"),
        format!("neighbour add 198.51.100.2 lladdr {outer} nud permanent dev {WAN}"),
        format!("neighbour add 2001:db8:1::2 lladdr {outer} nud permanent dev {WAN}"),
        format!("neighbour add 10.255.0.2 lladdr {inner} nud permanent dev {LAN}"),
        format!("neighbour add 2001:db8:ff::2 lladdr {inner} nud permanent dev {LAN}"),
        "route add default via 198.51.100.2".to_owned(),
        "route add ::/0 via 2001:db8:1::2".to_owned(),
    ];
    for prefix in ["10.0.0.0/16", "192.0.2.0/24"] {
        lines.push(format!("route add {prefix} via 10.255.0.2"));
    }
    for prefix in ["fd00::/63", "2001:db8:3::/64"] {
        lines.push(format!("route add {prefix} via 2001:db8:ff::2"));
    }
    lines
}

/// Everything is let through: what is dropped makes no entry.
const RULES: &str = "table ip nat {
        chain prerouting {
            type nat hook prerouting priority dstnat;
            iifname wan0 meta l4proto { tcp, sctp } th dport 80 dnat to 10.0.0.80
            iifname wan0 tcp dport 8080 dnat to 10.0.0.81:80
            iifname wan0 meta l4proto { udp, udplite } th dport 53 dnat to 10.0.0.53
        }
        chain postrouting {
            type nat hook postrouting priority srcnat;
            oifname wan0 ip saddr 10.0.0.0/17 masquerade
            oifname wan0 ip saddr 10.0.128.0/17 snat to 203.0.113.1-203.0.113.8
        }
    }
    table ip6 nat {
        chain prerouting {
            type nat hook prerouting priority dstnat;
            iifname wan0 ip6 daddr 2001:db8:1::1 tcp dport 80 dnat to fd00::80
            iifname wan0 ip6 daddr 2001:db8:1::1 udp dport 53 dnat to fd00::53
        }
        chain postrouting {
            type nat hook postrouting priority srcnat;
            oifname wan0 ip6 saddr fd00::/64 masquerade
            oifname wan0 ip6 saddr fd00:0:0:1::/64 snat to 2001:db8:2::1-2001:db8:2::8
        }
    }
    table inet filter {
        chain forward { type filter hook forward priority filter; ct state new accept; accept; }
        chain input { type filter hook input priority filter; ct state new accept; accept; }
    }";

fn text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}
