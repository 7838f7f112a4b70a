//! A guarded router between an outside and an inside, with rules of the test's choice.
//!
//! ```text
//! clients ── out0 ═ wan0 ── router ── lan0 ═ srv0
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ctguard_tests::{
    daemon::Daemon,
    exec,
    netns::Namespace,
    product::{OUTSIDE, Site, WAN, wait_for},
    require,
};

/// The router's inner interface.
pub(crate) const LAN: &str = "lan0";
const INSIDE: &str = "srv0";

/// Conntrack works only where some rule wants it.
pub(crate) const TRACKING: &str = "table inet filter {
    chain input {
        type filter hook input priority filter; policy accept;
        ct state invalid drop
    }
}";

/// A flow a second and source, one at once: what is wrongly called new is refused.
const LOW: [&str; 6] = [
    "source.tcp.rate=1",
    "source.tcp.burst=1",
    "source.udp.rate=1",
    "source.udp.burst=1",
    "source.other.rate=1",
    "source.other.burst=1",
];

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// A host of the outside, each a source of its own.
    pub(crate) fn client(self, number: u8) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(203, 0, 113, number).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf, number.into(), 0, 0, 0, 1).into(),
        }
    }

    /// An address of the router's outer interface; the first is what it has by itself.
    pub(crate) fn public(self, number: u8) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(198, 51, 100, number).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// An address of the inner network; the first is the router's, [`CLIENTS`] behind it are the
    /// inside's.
    pub(crate) fn inside(self, number: u8) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 0, 0, number).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// Hosts of the outside, and of the inside.
const CLIENTS: u8 = 9;

/// What may tell new flows from known ones on this kernel, as `--new-flow-detection` has it.
pub(crate) fn detections() -> &'static [&'static str] {
    if require::has_conntrack_functions() { &["conntrack", "flow-cache"] } else { &["flow-cache"] }
}

/// A router, guarded or not yet, and what is behind it; all of it goes when dropped.
pub(crate) struct Home {
    pub(crate) site: Site,
    pub(crate) inside: Namespace,
}

impl Home {
    /// Builds it; `rules` is an nft ruleset for the router.
    pub(crate) fn build(rules: &str) -> Result<Self> {
        let site = Site::build()?;
        let inside = Namespace::create("inside")?;
        let home = Self { site, inside };
        home.connect()?;
        home.load(rules)?;
        Ok(home)
    }

    /// Loads an nft ruleset beside what is there.
    pub(crate) fn load(&self, rules: &str) -> Result<()> {
        let mut nft = self.site.guarded().command("nft");
        exec::run_with_input(nft.args(["-f", "-"]), rules)?;
        Ok(())
    }

    /// Guards the outer interface with low ceilings, and waits until the whole table is known.
    pub(crate) fn guard(&self, detection: &str, more: &[&str]) -> Result<Daemon> {
        guard(&self.site, detection, more)
    }

    fn connect(&self) -> Result<()> {
        let Self { site, inside } = self;
        let router = site.guarded();
        inside.ip(&[format!(
            "link add {INSIDE} type veth peer name {LAN} netns {}",
            router.name()
        )])?;
        for host in [site.outside(), router, inside] {
            host.sysctl(&SYSCTLS)?;
        }
        router.sysctl(&FORWARDING)?;

        let mut outer = addresses(OUTSIDE, |family| vec![family.public(254)]);
        outer.extend(addresses("lo", |family| (1..=CLIENTS).map(|n| family.client(n)).collect()));
        outer.push(format!("route add 10.0.0.0/24 via {}", Family::Ipv4.public(1)));
        outer.push(format!("route add 2001:db8:1::/64 via {}", Family::Ipv6.public(1)));
        site.outside().ip(&outer)?;

        let mut between = addresses(WAN, |family| vec![family.public(1)]);
        between.extend(addresses(LAN, |family| vec![family.inside(1)]));
        between.push(format!("link set {LAN} up"));
        between.extend(default_routes(|family| family.public(254)));
        router.ip(&between)?;

        let mut inner =
            addresses(INSIDE, |family| (2..2 + CLIENTS).map(|n| family.inside(n)).collect());
        inner.push(format!("link set {INSIDE} up"));
        inner.extend(default_routes(|family| family.inside(1)));
        inside.ip(&inner)
    }
}

const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv4.ping_group_range", "0 0"),
];

const FORWARDING: [(&str, &str); 2] =
    [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")];

fn addresses(device: &str, of: impl Fn(Family) -> Vec<IpAddr>) -> Vec<String> {
    let both = Family::BOTH.into_iter().flat_map(of);
    both.map(|address| match address {
        IpAddr::V4(ip) if device == "lo" => format!("address add {ip}/32 dev {device}"),
        IpAddr::V6(ip) if device == "lo" => format!("address add {ip}/128 dev {device} nodad"),
        IpAddr::V4(ip) => format!("address add {ip}/24 dev {device}"),
        IpAddr::V6(ip) => format!("address add {ip}/64 dev {device} nodad"),
    })
    .collect()
}

fn default_routes(gateway: impl Fn(Family) -> IpAddr) -> [String; 2] {
    let [v4, v6] = Family::BOTH.map(gateway);
    [format!("route add default via {v4}"), format!("route add ::/0 via {v6}")]
}

/// Guards the outer interface of a site with low ceilings; `more` are further arguments of
/// `ctguard run`, which hold against these. Returns once the whole table is known.
pub(crate) fn guard(site: &Site, detection: &str, more: &[&str]) -> Result<Daemon> {
    let mut arguments = vec!["run", "-i", WAN, "--new-flow-detection", detection];
    arguments.extend(LOW.iter().flat_map(|setting| ["--set", setting]));
    arguments.extend(more);
    let daemon = site.start(&arguments)?;
    wait_until_known(site)?;
    Ok(daemon)
}

/// Waits until the known-flows filter has held the whole table.
pub(crate) fn wait_until_known(site: &Site) -> Result<()> {
    wait_for("the whole table in the known-flows filter", || {
        let status = site.status()?;
        Ok((status.pointer("/known_flows/complete") == Some(&true.into())).then_some(()))
    })
}
