//! A table that holds many entries, and a filter that knows them as after the daemon's dump.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use ctguard_datapath::{
    hash, known_flows,
    packet::{Ipv4, protocol},
};
use ctguard_layout::Environment;

use crate::{data_path::DataPath, exec, netns::Namespace, sysctl};

/// Entries of a full table.
pub(super) const ENTRIES: u32 = 250_000;

const SENDER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 5000);
const RECEIVER_PORT: u16 = 5001;
/// The first of the destinations, each of which is an entry.
const FIRST_DESTINATION: u32 = 0x7f01_0000;

/// One end of a flow.
pub(super) type End = (IpAddr, u16);

/// Flows that conntrack holds as long as this lives.
pub(super) struct Live {
    /// A UDP flow: who asked, who answered.
    pub(super) udp: (End, End),
    /// An established connection: client, server.
    pub(super) tcp: (End, End),
    _sockets: (TcpListener, TcpStream),
}

impl Live {
    /// Makes the flows in this thread's namespace.
    pub(super) fn open() -> Result<Self> {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        client.send_to(&[0], server.local_addr()?)?;
        server.send_to(&[0], client.local_addr()?)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        Ok(Self {
            udp: (end(client.local_addr()?), end(server.local_addr()?)),
            tcp: (end(stream.local_addr()?), end(stream.peer_addr()?)),
            _sockets: (listener, stream),
        })
    }
}

fn end(address: SocketAddr) -> End {
    (address.ip(), address.port())
}

/// Conntrack at work in the namespace, its entries lasting longer than any benchmark.
pub(super) fn track(namespace: &Namespace) -> Result<()> {
    let mut nft = namespace.command("nft");
    exec::run_with_input(
        nft.args(["-f", "-"]),
        "table inet bench {
            chain out { type filter hook output priority 0; ct state new accept; };
        }
        ",
    )?;
    let lasting = [
        ("net.netfilter.nf_conntrack_udp_timeout", "3600"),
        ("net.netfilter.nf_conntrack_udp_timeout_stream", "3600"),
    ];
    namespace.sysctl(&lasting)
}

/// Fills the table of this thread's namespace, by real datagrams.
pub(super) fn fill(entries: u32) -> Result<()> {
    // Reads nothing: what does not fit its buffer is dropped behind conntrack.
    let _receiver = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, RECEIVER_PORT))?;
    let sender = UdpSocket::bind(SENDER)?;
    for destination in destinations(entries) {
        sender.send_to(&[0], (destination, RECEIVER_PORT)).context("cannot fill the table")?;
    }
    let count: u32 = sysctl::read("net.netfilter.nf_conntrack_count")?.parse()?;
    ensure!(count >= entries, "the table holds {count} entries of {entries}");
    Ok(())
}

/// Notes both tuples of every entry, as the daemon's dump does.
pub(super) fn note_entries(path: &DataPath, environment: &Environment) {
    let sender = Ipv4(u32::from(SENDER.0));
    let there = u32::from(SENDER.1) << 16 | u32::from(RECEIVER_PORT);
    for destination in destinations(ENTRIES) {
        let destination = Ipv4(u32::from(destination));
        for (from, to, key) in
            [(sender, destination, there), (destination, sender, there.rotate_left(16))]
        {
            let hash = hash::tuple(&environment.fixed.tuple_key, from, to, protocol::UDP, key);
            known_flows::note(path, environment, hash);
        }
    }
}

fn destinations(entries: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..entries).map(|number| Ipv4Addr::from(FIRST_DESTINATION + number))
}
