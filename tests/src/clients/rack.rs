//! Clients, each with an address of its own, far from a guarded router; servers behind it.
//!
//! ```text
//! client 0 … 4 ── far ═ delay ═ internet ── wan0 ── router ── inside: servers
//! ```

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    catalogue::{Client, Protocol, Server},
    root::{Inmate, Root},
};
use crate::{
    addresses::{FLOOD_PORT, Family},
    arrival::Receivers,
    cpus::Cpus,
    exec,
    flood::Flood,
    guard::{Guard, Orders, Standing},
    netns::Namespace,
    object::{self, Attached, Program},
    product::wait_for,
    recipe::Rate,
    router::{ISP, Network, WAN},
};

/// First contacts made at once.
pub(super) const SLOTS: u8 = 5;
/// The flood goes on for so long before the first client comes: the guard is in its routine.
const SETTLES: Duration = Duration::from_secs(3);

/// The network with everything that stays while clients come and go; all of it goes when dropped.
#[derive(Debug)]
pub(super) struct Rack {
    // Dropped in this order: processes before their namespaces.
    guard: Standing,
    _servers: Vec<Inmate>,
    slots: Vec<Namespace>,
    contacts: u16,
    _program: Attached,
    _receivers: Receivers,
    cpus: Cpus,
    network: Network,
}

impl Rack {
    /// Builds the network, starts the servers, and guards the router.
    pub(super) fn build(
        root: &Root,
        servers: &[&Server],
        orders: Orders,
        log: &Path,
    ) -> Result<Self> {
        let cpus = Cpus::share_out()?;
        cpus.enter_others()?;
        let network = Network::build()?;
        let receivers = Receivers::start(&network, WAN, cpus)?;
        let program = network.internet.run(|| object::attach(Program::Nowhere, ISP))?;
        network.far.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        let slots = (0..SLOTS).map(|slot| connect(&network, slot)).collect::<Result<_>>()?;
        exec::run_with_input(network.router.command("nft").args(["-f", "-"]), &forwarded(servers))
            .context("cannot forward the servers' ports")?;
        let started = servers.iter().map(|server| serve(root, &network, server, log));
        let servers = started.collect::<Result<_>>()?;
        let guard = Guard::Ctguard(orders).start(&network.router, FLOOD_PORT, log)?;
        Ok(Self {
            guard,
            _servers: servers,
            slots,
            contacts: 0,
            _program: program,
            _receivers: receivers,
            cpus,
            network,
        })
    }

    /// The namespaces of clients, each with an address that no client had before.
    pub(super) fn newcomers(&mut self) -> Result<Vec<(&Namespace, Ipv4Addr)>> {
        let first = self.contacts;
        self.contacts += u16::from(SLOTS);
        let addresses = (first..self.contacts).map(newcomer);
        let newcomers: Vec<_> = self.slots.iter().zip(addresses).collect();
        for (slot, (namespace, address)) in (0..SLOTS).zip(&newcomers) {
            let device = device(slot);
            self.network.far.ip(&[format!("route replace {address}/32 dev {device}")])?;
            let gateway = gateway(slot);
            namespace.ip(&[
                "address flush dev eth0".to_owned(),
                format!("address add {address}/32 dev eth0"),
                format!("route replace default via {gateway} dev eth0 onlink src {address}"),
            ])?;
        }
        Ok(newcomers)
    }

    /// Starts the flood under which clients of this protocol are challenged.
    pub(super) fn flood(&self, protocol: Protocol, rate: u32) -> Result<Flood> {
        let to = (Family::Ipv4, FLOOD_PORT);
        let rate = Rate::PerSecond(rate);
        let flood = Flood::through(&self.network, protocol.flood(), rate, to, self.cpus)?;
        wait_for("the challenge", || Ok((self.stage(protocol)? == "challenge").then_some(())))?;
        std::thread::sleep(SETTLES);
        Ok(flood)
    }

    /// The guard's stage for the clients' class.
    pub(super) fn stage(&self, protocol: Protocol) -> Result<String> {
        let status = self.guard.status()?.context("the guard is ctguard")?;
        let stage = status.pointer(&format!("/stages/{}", protocol.class()));
        let stage = stage.and_then(Value::as_str);
        stage.map(str::to_owned).with_context(|| format!("no stage in {status}"))
    }

    /// What the client says of its version.
    pub(super) fn version(&self, client: &Client, root: &Root) -> Result<String> {
        let told = root.run(&self.slots[0], &client.version);
        let told = told.with_context(|| format!("{} does not tell its version", client.name))?;
        Ok(told.lines().next().unwrap_or_default().trim().to_owned())
    }
}

fn connect(network: &Network, slot: u8) -> Result<Namespace> {
    let namespace = Namespace::create(&format!("client{slot}"))?;
    let device = device(slot);
    network.far.ip(&[
        format!("link add {device} type veth peer name eth0 netns {}", namespace.name()),
        format!("address add {}/32 dev {device}", gateway(slot)),
        format!("link set {device} up"),
    ])?;
    namespace.ip(&["link set eth0 up"])?;
    Ok(namespace)
}

fn device(slot: u8) -> String {
    format!("client{slot}")
}

/// Of the range for benchmarks (RFC 2544), as the clients' own.
fn gateway(slot: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 1 + slot)
}

/// The address of one contact: networks of their own as far as there are, beside those of the lab's
/// far clients.
fn newcomer(contact: u16) -> Ipv4Addr {
    let [network, host] = [contact % 40, 1 + contact / 40].map(|part| part.to_be_bytes()[1]);
    Ipv4Addr::new(198, 19, 210 + network, host)
}

/// Rules that give the servers' ports of the router to them, before its own rules take one.
fn forwarded(servers: &[&Server]) -> String {
    let server = Family::Ipv4.inside_server();
    let ports = |protocol: &str, ports: fn(&Server) -> &[u16]| {
        let rule = |port| format!("iifname {WAN} {protocol} dport {port} dnat to {server}\n");
        servers.iter().flat_map(|server| ports(server)).map(rule).collect::<String>()
    };
    format!(
        "table ip clients {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat - 1\n{}{}}}\n}}",
        ports("tcp", |server| &server.tcp),
        ports("udp", |server| &server.udp)
    )
}

/// Starts a server, and waits until it listens.
fn serve(root: &Root, network: &Network, server: &Server, log: &Path) -> Result<Inmate> {
    let path = log.with_file_name(format!("{}.log", server.name));
    let made = std::fs::File::create(&path);
    let output = made.with_context(|| format!("cannot make {}", path.display()))?;
    let errors = output.try_clone().context("cannot copy a file")?;
    let address = Family::Ipv4.inside_server().to_string();
    let variables = [("ADDRESS", address.as_str())];
    let output = [output.into(), errors.into()];
    let inmate = root.start(&network.inside, &server.run, &variables, output)?;
    let wanted = [("--tcp", &server.tcp), ("--udp", &server.udp)];
    for (kind, port) in
        wanted.into_iter().flat_map(|(kind, ports)| ports.iter().map(move |port| (kind, port)))
    {
        let mut ask = network.inside.command("ss");
        ask.args(["-H", "--listening", "--numeric", kind, &format!("sport = :{port}")]);
        let began = Instant::now();
        while exec::run(&mut ask)?.is_empty() {
            if began.elapsed() > Duration::from_secs(20) {
                bail!("{} does not listen on {kind} {port}: {}", server.name, path.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(inmate)
}
