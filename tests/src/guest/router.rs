//! A router that masquerades between an outside and an inside, and questions through it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    daemon::Daemon,
    exec,
    netns::{Handle, Namespace},
    product::{OUTSIDE, Site, WAN},
};

const LAN: &str = "lan0";
const HOST: &str = "host0";
pub(super) const SERVER_PORT: u16 = 7;
/// Far more than an answer takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

const OUTSIDE4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254));
const OUTSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe));
const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const INSIDE4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const INSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));

/// Of each family: a host inside, the router's outer address, a server outside.
pub(super) const PATHS: [Path; 2] = [
    Path { host: INSIDE4, router: ROUTER4, server: OUTSIDE4 },
    Path { host: INSIDE6, router: ROUTER6, server: OUTSIDE6 },
];

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) host: IpAddr,
    pub(super) router: IpAddr,
    pub(super) server: IpAddr,
}

/// A site whose guarded namespace routes for an inside.
pub(super) struct Router {
    inside: Namespace,
    pub(super) site: Site,
}

/// Questions that reached a server, and are not answered yet.
pub(super) struct Asked {
    server: UdpSocket,
    clients: Vec<UdpSocket>,
    /// The clients as the server sees them.
    seen_as: Vec<SocketAddr>,
}

impl Router {
    /// Both families masqueraded, nothing guarded yet.
    pub(super) fn build() -> Result<Self> {
        let site = Site::build()?;
        let inside = Namespace::create("inside")?;
        let guarded = site.guarded();
        let router = guarded.name();
        inside.ip(&[format!("link add {HOST} type veth peer name {LAN} netns {router}")])?;
        site.outside().ip(&[
            format!("address add {OUTSIDE4}/24 dev {OUTSIDE}"),
            format!("address add {OUTSIDE6}/64 dev {OUTSIDE} nodad"),
        ])?;
        guarded.sysctl(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            // Questions wait for their answers as long as a slow machine takes.
            ("net.netfilter.nf_conntrack_udp_timeout", "300"),
        ])?;
        guarded.ip(&[
            format!("link set {LAN} up"),
            format!("address add {ROUTER4}/24 dev {WAN}"),
            format!("address add {ROUTER6}/64 dev {WAN} nodad"),
            format!("address add 10.0.0.1/24 dev {LAN}"),
            format!("address add 2001:db8:1::1/64 dev {LAN} nodad"),
        ])?;
        inside.ip(&[
            format!("link set {HOST} up"),
            format!("address add {INSIDE4}/24 dev {HOST}"),
            format!("address add {INSIDE6}/64 dev {HOST} nodad"),
            "route add default via 10.0.0.1".to_owned(),
            "route add ::/0 via 2001:db8:1::1".to_owned(),
        ])?;
        let rules = format!(
            "table inet nat {{
                chain postrouting {{
                    type nat hook postrouting priority srcnat; policy accept;
                    oifname {WAN} masquerade
                }}
            }}"
        );
        exec::run_with_input(guarded.command("nft").args(["-f", "-"]), &rules)
            .context("cannot load the router's rules")?;
        Ok(Self { inside, site })
    }

    /// Guards with a ceiling of one flow, and this detection.
    pub(super) fn guard(&self, detection: &str) -> Result<Daemon> {
        let mut arguments = vec!["run", "-i", WAN, "--new-flow-detection", detection];
        arguments.extend(["--set", "source.udp.rate=1", "--set", "source.udp.burst=1"]);
        self.site.start(&arguments)
    }

    /// Asks the server outside over so many flows.
    pub(super) fn ask(&self, path: Path, flows: u16) -> Result<Asked> {
        ask((&self.inside, path.host), (self.site.outside(), path.server), flows)
            .with_context(|| format!("from {} through the router", path.host))
    }
}

/// Asks `server` over so many flows; each question must arrive.
pub(super) fn ask(
    (inside, host): (&Handle, IpAddr),
    (outside, server): (&Handle, IpAddr),
    flows: u16,
) -> Result<Asked> {
    let to = SocketAddr::new(server, SERVER_PORT);
    let server = open(outside, to).context("cannot open the server's port")?;
    let (mut clients, mut seen_as) = (Vec::new(), Vec::new());
    for flow in 0..flows {
        let client = open(inside, SocketAddr::new(host, 0)).context("cannot open a port")?;
        client.send_to(&flow.to_be_bytes(), to).context("cannot ask")?;
        let (_, asked_by) =
            server.recv_from(&mut [0; 8]).with_context(|| format!("question {flow} is lost"))?;
        clients.push(client);
        seen_as.push(asked_by);
    }
    Ok(Asked { server, clients, seen_as })
}

impl Asked {
    /// Answers all; each answer must arrive.
    pub(super) fn answer(&self) -> Result<()> {
        for (client, seen_as) in self.clients.iter().zip(&self.seen_as) {
            let sent = seen_as.port().to_be_bytes();
            self.server.send_to(&sent, seen_as).context("cannot answer")?;
            let mut datagram = [0; 8];
            let bytes = client
                .recv(&mut datagram)
                .with_context(|| format!("the answer to {seen_as} is lost"))?;
            ensure!(datagram.get(..bytes) == Some(sent.as_slice()), "another answer");
        }
        Ok(())
    }
}

fn open(namespace: &Handle, address: SocketAddr) -> Result<UdpSocket> {
    namespace.run(|| {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}
