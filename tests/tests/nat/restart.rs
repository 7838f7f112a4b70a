//! Flows that are older than the daemon, or than the guard.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Site, WAN},
    require,
};

use crate::{
    counts::Counts,
    home::{Family, Home, LAN, detections, wait_until_known},
    talk,
};

const MASQUERADE: &str = "table inet nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname wan0 masquerade
    }
}";

/// No flow ends during a test.
const TIMEOUTS: [(&str, &str); 2] = [
    ("net.netfilter.nf_conntrack_udp_timeout", "600"),
    ("net.netfilter.nf_conntrack_udp_timeout_stream", "600"),
];

const FLOWS: usize = 10;

/// Fails when connections and conversations that began before the first start, and have said
/// nothing since, are charged or cut.
#[test]
fn flows_older_than_the_guard_go_on() -> Result<()> {
    if !require::root("flows_older_than_the_guard_go_on") {
        return Ok(());
    }
    for detection in detections() {
        let home = Home::build(MASQUERADE)?;
        home.site.guarded().sysctl(&TIMEOUTS)?;
        let servers = Servers::start(&home)?;
        let flows = servers.open(&home)?;
        let _daemon = home.guard(detection, &[])?;
        flows.go_on(&home.site, &servers).context(*detection)?;
    }
    Ok(())
}

/// Fails when idle flows are lost with the daemon that saw them begin, those that no daemon saw
/// are charged, or the filter forgets what only dumps can tell it.
#[test]
fn idle_flows_outlive_daemons_and_generations_of_the_filter() -> Result<()> {
    if !require::root("idle_flows_outlive_daemons_and_generations_of_the_filter") {
        return Ok(());
    }
    for detection in detections() {
        let home = Home::build(MASQUERADE)?;
        let site = &home.site;
        site.guarded().sysctl(&TIMEOUTS)?;
        let servers = Servers::start(&home)?;

        let daemon = home.guard(detection, &[])?;
        let seen = servers.open(&home)?;
        daemon.kill()?;
        let unseen = servers.open(&home)?;

        // An interface that joins makes the filter begin anew: the dump fills a generation, which
        // is asked, and the other is cleared. Twice, so that none is left that saw them begin.
        let alone = ["run", "-i", WAN, "--new-flow-detection", detection];
        let both = [&alone[..], &["-i", LAN]].concat();
        for arguments in [&both[..], &alone, &both, &alone] {
            let daemon = site.start(arguments)?;
            wait_until_known(site)?;
            daemon.kill()?;
        }
        let _daemon = site.start(&alone)?;
        seen.go_on(site, &servers).with_context(|| format!("{detection}, seen"))?;
        unseen.go_on(site, &servers).with_context(|| format!("{detection}, unseen"))?;
    }
    Ok(())
}

/// Of either family, outside.
struct Servers(Vec<(Family, UdpSocket, TcpListener)>);

/// Flows from inside to the servers.
struct Flows {
    /// The client, the server's number and where it answers to.
    conversations: Vec<(UdpSocket, usize, SocketAddr)>,
    connections: Vec<[TcpStream; 2]>,
}

impl Servers {
    fn start(home: &Home) -> Result<Self> {
        let servers = Family::BOTH.into_iter().map(|family| {
            let at = SocketAddr::new(family.client(1), 53);
            let outside = home.site.outside();
            Ok((family, talk::udp(outside, at)?, talk::listen(outside, at)?))
        });
        servers.collect::<Result<_>>().map(Self)
    }

    fn open(&self, home: &Home) -> Result<Flows> {
        let (mut conversations, mut connections) = (Vec::new(), Vec::new());
        for (number, (family, server, listener)) in self.0.iter().enumerate() {
            let to = server.local_addr()?;
            let source = family.inside(2);
            for _ in 0..FLOWS {
                let client = talk::udp(&home.inside, SocketAddr::new(source, 0))?;
                let from = talk::ask(&client, server, to)?;
                conversations.push((client, number, from));
                connections.push(talk::open(&home.inside, source, to, listener)?);
            }
        }
        Ok(Flows { conversations, connections })
    }
}

impl Flows {
    /// The outside speaks first, on each flow.
    fn go_on(&self, site: &Site, servers: &Servers) -> Result<()> {
        let before = Counts::read(site)?;
        for (client, server, from) in &self.conversations {
            let (family, server, _) = &servers.0[*server];
            talk::answer(server, client, *from).with_context(|| format!("UDP, {family:?}"))?;
        }
        for [client, server] in &self.connections {
            talk::tell(server, client)?;
            talk::tell(client, server)?;
        }
        let counts = before.until_now(site)?;
        ensure!(counts.new_flows() == 0, "none of these is new: {counts:?}");
        Ok(())
    }
}
