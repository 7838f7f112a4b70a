//! The network of the lab: far clients and servers, 20 ms of path, and the NAT router under test.
//!
//! ```text
//! far ── TUN ═ delay ═ TUN ── internet ── isp0═wan0 ── router ── lan0═srv0 ── inside
//! ```
//! `wan0` is what a guard guards. The flood leaves by `isp0`, so that it shares the router's one
//! queue with the legitimate packets.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    addresses::{self, Family},
    crowd::Crowd,
    delay::{Delay, ROUND_TRIP},
    exec,
    mixing::Arrivals,
    netns::{Handle, Namespace},
    recipe::FloodKind,
};

/// The guarded interface, in the router.
pub const WAN: &str = "wan0";
/// The other end of [`WAN`], where the flood leaves.
pub const ISP: &str = "isp0";
/// A link that carries nothing, in the internet and inside, see [`crate::flood`].
pub const IDLE: &str = "idle0";
/// Its other end, where the frames of the flood's pages end; a device that is down would not take them.
pub const SINK: &str = "idle1";
/// The router's other interface.
pub const LAN: &str = "lan0";
/// The other end of [`LAN`], where inside hosts are.
pub const SERVERS: &str = "srv0";
const FAR_TUN: &str = "far0";
const PATH_TUN: &str = "path0";

/// A NAT router between a far side and an inside; all of it goes when dropped.
#[derive(Debug)]
pub struct Network {
    // Dropped first: it holds the TUN devices.
    delay: Delay,
    /// Clients and servers of the far side.
    pub far: Namespace,
    /// The path between, with its end of the router's link.
    pub internet: Namespace,
    /// The router under test.
    pub router: Namespace,
    /// Clients and servers behind the router.
    pub inside: Namespace,
}

impl Network {
    /// Builds the whole network, both families, nothing in its tables.
    pub fn build() -> Result<Self> {
        Self::with_path(ROUND_TRIP)
    }

    /// The same with far clients and servers at this distance.
    pub fn with_path(round_trip: Duration) -> Result<Self> {
        let far = Namespace::create("far")?;
        let internet = Namespace::create("internet")?;
        let router = Namespace::create("router")?;
        let inside = Namespace::create("inside")?;
        for namespace in [&far, &internet, &router, &inside] {
            namespace.sysctl(&COMMON_SYSCTLS)?;
        }
        for host in [&far, &inside] {
            host.sysctl(&HOST_SYSCTLS)?;
        }
        for forwarder in [&internet, &router] {
            forwarder.sysctl(&FORWARDER_SYSCTLS)?;
        }

        let delay = Delay::start((&far, FAR_TUN), (&internet, PATH_TUN), round_trip)?;
        configure_far(&far)?;
        connect(&internet, &router, &inside)?;
        configure_internet(&internet)?;
        router.sysctl(&ROUTER_SYSCTLS)?;
        configure_router(&router)?;
        configure_inside(&inside)?;
        Ok(Self { delay, far, internet, router, inside })
    }

    /// The way of packets from far clients.
    #[must_use]
    pub fn arrivals(&self) -> &Arc<Arrivals> {
        self.delay.arrivals()
    }

    /// The hardware addresses of a frame from [`ISP`] to [`WAN`]: source, destination.
    pub fn flood_link(&self) -> Result<([u8; 6], [u8; 6])> {
        Ok((hardware_address(&self.internet, ISP)?, hardware_address(&self.router, WAN)?))
    }

    /// Where a kind of flood leaves, and the hardware addresses of its frames.
    pub fn flood_way(&self, kind: FloodKind) -> Result<FloodWay<'_>> {
        if !kind.is_from_inside() {
            return Ok(FloodWay { from: (&self.internet, ISP), link: self.flood_link()? });
        }
        let link = (hardware_address(&self.inside, SERVERS)?, hardware_address(&self.router, LAN)?);
        Ok(FloodWay { from: (&self.inside, SERVERS), link })
    }
}

/// Where a flood leaves.
#[derive(Clone, Copy, Debug)]
pub struct FloodWay<'n> {
    /// Namespace and device.
    pub from: (&'n Handle, &'static str),
    /// Hardware addresses: source, destination.
    pub link: ([u8; 6], [u8; 6]),
}

const COMMON_SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
];

const HOST_SYSCTLS: [(&str, &str); 6] = [
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.tcp_max_syn_backlog", "4096"),
    ("net.ipv4.tcp_syncookies", "1"),
    // Each connection starts alike, whatever the one before met.
    ("net.ipv4.tcp_no_metrics_save", "1"),
    ("net.ipv4.ip_local_port_range", "10240 65000"),
    // Echo requests from sockets that need no privilege, by the lab's own group.
    ("net.ipv4.ping_group_range", "0 0"),
];

const FORWARDER_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];

const ROUTER_SYSCTLS: [(&str, &str); 2] = [
    // The kernel's defaults: an ACK of no connection makes an entry, an SCTP packet with a wrong
    // checksum does not.
    ("net.netfilter.nf_conntrack_tcp_loose", "1"),
    ("net.netfilter.nf_conntrack_checksum", "1"),
];

fn configure_far(far: &Namespace) -> Result<()> {
    let mut lines = vec![format!("link set {FAR_TUN} up txqueuelen {TUN_QUEUE}")];
    for family in [Family::Ipv4, Family::Ipv6] {
        let clients = (0..addresses::FAR_CLIENTS).map(|index| family.far_client(index));
        lines.extend(clients.chain([family.far_server()]).map(|ip| add_address(ip, FAR_TUN)));
    }
    lines.push(format!("route add default dev {FAR_TUN}"));
    lines.push(format!("route add ::/0 dev {FAR_TUN}"));
    far.ip(&lines)
}

/// Packets a TUN device holds for the delay: more than a burst ever has, so that none is lost.
const TUN_QUEUE: u32 = 10_000;

fn connect(internet: &Namespace, router: &Namespace, inside: &Namespace) -> Result<()> {
    internet.ip(&[
        format!("link add {ISP} type veth peer name {WAN} netns {}", router.name()),
        format!("link add {IDLE} type veth peer name {SINK}"),
        format!("link set {SINK} up"),
    ])?;
    inside.ip(&[
        format!("link add {SERVERS} type veth peer name {LAN} netns {}", router.name()),
        format!("link add {IDLE} type veth peer name {SINK}"),
        format!("link set {SINK} up"),
    ])
}

fn configure_internet(internet: &Namespace) -> Result<()> {
    let live = Crowd::live_networks().map(|network| format!("route add local {network} dev lo"));
    internet.ip(&live)?;
    internet.ip(&[
        format!("link set {PATH_TUN} up txqueuelen {TUN_QUEUE}"),
        format!("link set {ISP} up"),
        format!("address add 198.51.100.254/24 dev {ISP}"),
        format!("address add 2001:db8::fe/64 dev {ISP} nodad"),
        format!("route add 203.0.113.0/24 dev {PATH_TUN}"),
        format!("route add 198.19.0.0/16 dev {PATH_TUN}"),
        format!("route add 2001:db8:f::/48 dev {PATH_TUN}"),
        format!("route add 2001:db8:100::/40 dev {PATH_TUN}"),
        format!("route add 2001:db8:1::/48 via 2001:db8::1 dev {ISP}"),
        // Whatever the router answers to spoofed sources ends here, without a word.
        "route add blackhole default".to_owned(),
        "route add blackhole ::/0".to_owned(),
    ])
}

fn configure_router(router: &Namespace) -> Result<()> {
    router.ip(&[
        format!("link set {WAN} up"),
        format!("link set {LAN} up"),
        format!("address add 198.51.100.1/24 dev {WAN}"),
        format!("address add 2001:db8::1/64 dev {WAN} nodad"),
        format!("address add 10.0.0.1/16 dev {LAN}"),
        format!("address add 2001:db8:1::1/64 dev {LAN} nodad"),
        "route add default via 198.51.100.254".to_owned(),
        "route add ::/0 via 2001:db8::fe".to_owned(),
        "route add 10.9.0.0/24 via 10.0.0.80".to_owned(),
        "route add 2001:db8:1:9::/64 via 2001:db8:1::80".to_owned(),
    ])?;
    // A veth takes frames from `xdp_xmit` only while its receiver polls, which GRO switches on.
    for device in [WAN, LAN] {
        exec::run(router.command("ethtool").args(["-K", device, "gro", "on"]))?;
    }
    exec::run_with_input(router.command("nft").args(["-f", "-"]), &ruleset())
        .context("cannot load the router's rules")?;
    Ok(())
}

fn configure_inside(inside: &Namespace) -> Result<()> {
    let mut lines = vec![format!("link set {SERVERS} up")];
    for family in [Family::Ipv4, Family::Ipv6] {
        let clients = (0..addresses::INSIDE_CLIENTS).map(|index| family.inside_client(index));
        lines.extend(clients.map(|ip| add_address(ip, SERVERS)));
    }
    lines.extend([
        format!("address add 10.0.0.80/16 dev {SERVERS}"),
        format!("address add 2001:db8:1::80/64 dev {SERVERS} nodad"),
        "route add default via 10.0.0.1".to_owned(),
        "route add ::/0 via 2001:db8:1::1".to_owned(),
        "route add blackhole 10.9.0.0/24".to_owned(),
        "route add blackhole 2001:db8:1:9::/64".to_owned(),
    ]);
    inside.ip(&lines)
}

/// What a home or office router does: masquerade, a few forwarded ports, an exposed host for what
/// nothing else takes, nothing else let in.
fn ruleset() -> String {
    let server = Family::Ipv4.inside_server();
    let sink = Family::Ipv4.sink();
    let [tcp, echo, udp] = [addresses::TCP_PORT, addresses::TCP_ECHO_PORT, addresses::UDP_PORT];
    let crowd_server = Family::Ipv4.crowd_server();
    let [crowd, hold] = [addresses::CROWD_PORT, addresses::HOLD_PORT];
    let [flood, dropped] = [addresses::FLOOD_PORT, addresses::DROPPED_PORT];
    let [exposed, unexposed] = [addresses::EXPOSED_PORTS, addresses::UNEXPOSED_PORTS]
        .map(|(first, last)| format!("{first}-{last}"));
    format!(
        "table ip nat {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                iifname {WAN} tcp dport {{ {tcp}, {echo} }} dnat to {server}
                iifname {WAN} udp dport {udp} dnat to {server}
                iifname {WAN} meta l4proto {{ tcp, udp, sctp }} th dport {flood} dnat to {sink}
                iifname {WAN} meta l4proto {{ tcp, udp }} th dport {{ {crowd}, {hold} }} dnat to {crowd_server}
                iifname {WAN} udp dport {exposed} dnat to {sink}
                iifname {WAN} icmp type echo-request dnat to {sink}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                oifname {WAN} masquerade
            }}
        }}
        table inet filter {{
            chain input {{
                type filter hook input priority filter; policy accept;
                ct state established,related accept
                meta l4proto {{ icmp, ipv6-icmp }} accept
                iifname {WAN} drop
            }}
            chain forward {{
                type filter hook forward priority filter; policy accept;
                ct state established,related accept
                iifname {WAN} meta l4proto {{ tcp, udp, sctp }} th dport {dropped} drop
                iifname {WAN} udp dport {unexposed} drop
            }}
        }}"
    )
}

fn add_address(address: std::net::IpAddr, device: &str) -> String {
    match address {
        std::net::IpAddr::V4(ip) => format!("address add {ip}/32 dev {device}"),
        std::net::IpAddr::V6(ip) => format!("address add {ip}/128 dev {device} nodad"),
    }
}

fn hardware_address(namespace: &Namespace, device: &str) -> Result<[u8; 6]> {
    let shown =
        exec::run(Command::new("ip").args(["-n", namespace.name(), "-j", "link", "show", device]))?;
    let links: serde_json::Value = serde_json::from_str(&shown).context("cannot read `ip -j`")?;
    let address = links.pointer("/0/address").and_then(serde_json::Value::as_str);
    let parts = address.unwrap_or_default().split(':').map(|part| u8::from_str_radix(part, 16));
    let bytes = parts.collect::<Result<Vec<u8>, _>>().context("cannot read a link's address")?;
    <[u8; 6]>::try_from(bytes).ok().with_context(|| format!("{device} has no hardware address"))
}
