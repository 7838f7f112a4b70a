//! Conntrack zones: two networks of the same addresses behind one router.
//!
//! ```text
//! outside   ── out0 ═ wan0 ─┐        ┌─ lan0 ═ srv0 ── inside
//!                           ├ router ┤
//! outside 1 ── out1 ═ wan1 ─┘        └─ lan1 ═ srv1 ── inside 1
//! ```

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    exec,
    netns::{Handle, Namespace},
    product::{Site, WAN},
    require,
};

use crate::{
    counts::{Counts, wait_for_verdicts},
    home::{self, Family},
    talk,
};

const OTHER_WAN: &str = "wan1";

/// Zones by interface, and routes by where a packet comes from.
const ZONES: &str = "table inet zones {
    chain prerouting {
        type filter hook prerouting priority raw;
        iifname { wan0, lan0 } ct zone set 1
        iifname { wan1, lan1 } ct zone set 2
    }
}";

/// The same host on both sides of either network.
const HOST: u8 = 2;
const FLOWS: u16 = 20;

/// Two networks behind one router.
struct Tenants {
    site: Site,
    insides: [Namespace; 2],
    other_outside: Namespace,
}

/// Fails when flows are looked up in another zone than the interface's, or the setting waits.
#[test]
fn a_flow_is_known_in_the_zone_of_its_interface_alone() -> Result<()> {
    let test = "a_flow_is_known_in_the_zone_of_its_interface_alone";
    if !require::root(test)
        || !require::conntrack_functions(test)
        || !require::conntrack_zones(test)
    {
        return Ok(());
    }
    let tenants = Tenants::build()?;
    let site = &tenants.site;
    let zones = ["--set", "interface.wan0.zone=1", "--set", "interface.wan1.zone=2"];
    let arguments = [&["-i", OTHER_WAN][..], &zones].concat();
    let daemon = home::guard(site, "conntrack", &arguments)?;
    ensure!(site.succeed(&["status"])?.contains(", zone 2"), "people are told");

    for (family, ports) in [(Family::Ipv4, 10_000), (Family::Ipv6, 11_000)] {
        for tenant in [0, 1] {
            let counts = tenants.ask(tenant, family, ports, Answers::Awaited)?;
            ensure!(counts.new_flows() == 0, "{tenant}, {family:?}: {counts:?}");
        }
        // The other zone, where flows of the same tuples may be but these are not.
        site.succeed(&["set", "interface.wan0.zone=2"])?;
        let counts = tenants.ask(0, family, ports + 100, Answers::Refused)?;
        ensure!(counts.refused >= u64::from(FLOWS) / 2, "in the wrong zone: {counts:?}");
        let counts = tenants.ask(1, family, ports + 100, Answers::Awaited)?;
        ensure!(counts.new_flows() == 0, "the other is in its own: {counts:?}");
        site.succeed(&["set", "interface.wan0.zone=1"])?;
        let counts = tenants.ask(0, family, ports + 200, Answers::Awaited)?;
        ensure!(counts.new_flows() == 0, "and back: {counts:?}");
    }

    daemon.kill()?;
    let _daemon = site.start(&["run", "-i", WAN, "-i", OTHER_WAN])?;
    ensure!(site.succeed(&["get", "interface.wan1.zone"])?.trim() == "2", "a restart keeps it");
    let counts = tenants.ask(1, Family::Ipv4, 12_000, Answers::Awaited)?;
    ensure!(counts.new_flows() == 0, "{counts:?}");
    Ok(())
}

/// Fails when the flow cache claims to tell zones apart.
#[test]
fn the_flow_cache_takes_a_zone_with_a_warning() -> Result<()> {
    if !require::root("the_flow_cache_takes_a_zone_with_a_warning") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = home::guard(&site, "flow-cache", &["--set", "interface.wan0.zone=1"])?;
    ensure!(daemon.log()?.contains("warning: the flow cache"), "{}", daemon.log()?);
    ensure!(site.succeed(&["status"])?.contains(", zone 1 (ignored by the flow cache)"));
    let answer = site.ctguard(&["set", "interface.wan0.zone=5"])?;
    ensure!(answer.code == Some(0) && answer.errors.contains("warning: the flow cache"));
    let answer = site.ctguard(&["set", "interface.wan0.zone=0"])?;
    ensure!(answer.code == Some(0) && answer.errors.is_empty(), "{answer:?}");
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Answers {
    Awaited,
    /// But for those that the ceiling lets in.
    Refused,
}

impl Tenants {
    fn build() -> Result<Self> {
        let site = Site::build()?;
        let router = site.guarded();
        let insides = [Namespace::create("inside0")?, Namespace::create("inside1")?];
        let other_outside = Namespace::create("other")?;
        other_outside
            .ip(&[format!("link add out1 type veth peer name wan1 netns {}", router.name())])?;
        for (number, inside) in insides.iter().enumerate() {
            inside.ip(&[format!(
                "link add srv{number} type veth peer name lan{number} netns {}",
                router.name()
            )])?;
        }
        router.sysctl(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
        let outsides = [site.outside(), &other_outside];
        for (number, (inside, outside)) in insides.iter().zip(outsides).enumerate() {
            let [lan, wan] = [format!("lan{number}"), format!("wan{number}")];
            configure(inside, &format!("srv{number}"), Family::inside)?;
            configure(outside, &format!("out{number}"), Family::public)?;
            let mut lines = own(&lan, 1, Family::inside);
            lines.extend(own(&wan, 1, Family::public));
            let [outwards, inwards] = [100 + 2 * number, 101 + 2 * number];
            lines.extend([
                format!("link set {lan} up"),
                format!("link set {wan} up"),
                format!("rule add iif {lan} table {outwards}"),
                format!("rule add iif {wan} table {inwards}"),
                format!("route add 198.51.100.0/24 dev {wan} table {outwards}"),
                format!("route add 2001:db8::/64 dev {wan} table {outwards}"),
                format!("route add 10.0.0.0/24 dev {lan} table {inwards}"),
                format!("route add 2001:db8:1::/64 dev {lan} table {inwards}"),
            ]);
            router.ip(&lines)?;
            // Nothing else in a line would tell that it is of IPv6.
            for (device, table) in [(lan, outwards), (wan, inwards)] {
                let mut rule = Command::new("ip");
                rule.args(["-6", "-n", router.name(), "rule", "add", "iif", &device, "table"]);
                exec::run(rule.arg(table.to_string()))?;
            }
        }
        exec::run_with_input(router.command("nft").args(["-f", "-"]), ZONES)?;
        Ok(Self { site, insides, other_outside })
    }

    /// Opens flows of one tenant from `ports` on, answers them all, and tells what was counted.
    fn ask(&self, tenant: usize, family: Family, ports: u16, answers: Answers) -> Result<Counts> {
        let outside = [self.site.outside(), &self.other_outside][tenant];
        let at = SocketAddr::new(family.public(HOST), 53);
        let server = talk::udp(outside, at)?;
        let mut clients: Vec<(UdpSocket, SocketAddr)> = Vec::new();
        for port in ports..ports + FLOWS {
            let from = SocketAddr::new(family.inside(HOST), port);
            let client = talk::udp(&self.insides[tenant], from)?;
            let asked = talk::ask(&client, &server, at)
                .with_context(|| format!("tenant {tenant}, {family:?}"))?;
            clients.push((client, asked));
        }
        let before = Counts::read(&self.site)?;
        for (client, asked) in &clients {
            if answers == Answers::Awaited {
                talk::answer(&server, client, *asked)
                    .with_context(|| format!("tenant {tenant}, {family:?}"))?;
            } else {
                server.send_to(b"answer", asked)?;
            }
        }
        if answers == Answers::Refused {
            return wait_for_verdicts(&self.site, before, FLOWS.into());
        }
        before.until_now(&self.site)
    }
}

fn configure(host: &Handle, device: &str, address: fn(Family, u8) -> IpAddr) -> Result<()> {
    let mut lines = own(device, HOST, address);
    let [v4, v6] = Family::BOTH.map(|family| address(family, 1));
    lines.extend([
        format!("link set {device} up"),
        format!("route add default via {v4}"),
        format!("route add ::/0 via {v6}"),
    ]);
    host.ip(&lines)
}

fn own(device: &str, number: u8, address: fn(Family, u8) -> IpAddr) -> Vec<String> {
    let [v4, v6] = Family::BOTH.map(|family| address(family, number));
    vec![
        format!("address add {v4}/24 dev {device}"),
        format!("address add {v6}/64 dev {device} nodad"),
    ]
}
