//! What the table holds, counted entry by entry in bounded memory.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{heavy_hitters::HeavyHitters, text};
use ctguard_datapath::packet::protocol;
use ctguard_kernel::conntrack::{Entry, TcpState, status};

/// An established connection counts as idle after this.
const IDLE_SECONDS: u32 = 3600;
/// The kernel's `tcp_timeout_close_wait`; kube-proxy sets an hour.
pub(super) const CLOSE_WAIT_SECONDS: u32 = 60;
const DNS: u16 = 53;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// TCP whose handshake is not complete, as far as conntrack has seen.
    HalfOpen,
    /// TCP without a packet for an hour.
    Idle,
    Established,
    Closing,
    /// Closed by one side, and kept for longer than the kernel would.
    CloseWait,
    Dns,
    /// Other UDP, unreplied.
    UdpUnanswered,
    Udp,
    Other,
}

impl Kind {
    /// An entry does not tell which timeout it has: no connection counts as idle that may be fresh.
    fn of(entry: &Entry, established: &[u32]) -> Self {
        let answered = entry.status & status::SEEN_REPLY != 0;
        match entry.protocol {
            protocol::TCP => match entry.tcp_state {
                Some(TcpState::SynSent | TcpState::SynReceived) => Self::HalfOpen,
                // With tcp_loose, ACK and FIN of a forged sender reach CLOSE_WAIT without any reply.
                Some(TcpState::CloseWait) | None if !answered => Self::HalfOpen,
                Some(TcpState::Established) => {
                    let left = entry.timeout_seconds.unwrap_or(u32::MAX);
                    let least = established.iter().find(|seconds| **seconds >= left);
                    let quiet = least.map_or(0, |seconds| seconds.saturating_sub(left));
                    if quiet > IDLE_SECONDS { Self::Idle } else { Self::Established }
                }
                Some(TcpState::CloseWait)
                    if entry.timeout_seconds.is_some_and(|left| left > CLOSE_WAIT_SECONDS) =>
                {
                    Self::CloseWait
                }
                Some(_) => Self::Closing,
                None => Self::Established,
            },
            protocol::UDP if destination_port(entry.original.key) == DNS => Self::Dns,
            protocol::UDP if answered => Self::Udp,
            protocol::UDP => Self::UdpUnanswered,
            _ => Self::Other,
        }
    }
}

/// What source NAT uses a port for: the port is taken towards this remote only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Remote {
    pub(super) protocol: u8,
    /// The address that the ports are taken from.
    pub(super) own: IpAddr,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

#[derive(Debug, Default)]
pub(super) struct Census {
    /// Entries counted: the whole table, or a sample.
    pub(super) entries: u64,
    kinds: BTreeMap<Kind, u64>,
    pub(super) sources: HeavyHitters<IpAddr>,
    pub(super) sources_of: HeavyHitters<(Kind, IpAddr)>,
    pub(super) networks: HeavyHitters<(Kind, IpNet)>,
    pub(super) destinations: HeavyHitters<(Kind, IpAddr, u16)>,
    pub(super) remotes: HeavyHitters<Remote>,
    /// Entries that will live longer than the timeout that is set now.
    pub(super) old_deadlines: u64,
    /// Entries whose packets bypass conntrack (flowtables).
    pub(super) offloaded: u64,
    established: Vec<u32>,
    /// `tcp_timeout_close_wait` at present.
    pub(super) close_wait: Option<u64>,
}

impl Census {
    /// `established` has the timeouts that an established connection may have, in seconds:
    /// `tcp_timeout_established`, and those of `ct timeout` policies.
    pub(super) fn new(mut established: Vec<u32>) -> Self {
        established.sort_unstable();
        Self { established, ..Self::default() }
    }

    pub(super) fn note(&mut self, entry: &Entry) {
        let kind = Kind::of(entry, &self.established);
        self.entries += 1;
        *self.kinds.entry(kind).or_default() += 1;
        self.sources.note(entry.original.source);
        self.sources_of.note((kind, entry.original.source));
        self.networks.note((kind, network(entry.original.source)));
        let port = destination_port(entry.original.key);
        self.destinations.note((kind, entry.original.destination, port));
        self.offloaded += u64::from(entry.status & status::OFFLOADED != 0);
        let is_established = matches!(kind, Kind::Idle | Kind::Established);
        let left = entry.timeout_seconds.unwrap_or(0);
        self.old_deadlines +=
            u64::from(is_established && self.established.last().is_some_and(|most| left > *most));
        if entry.status & status::SOURCE_NAT != 0 {
            self.remotes.note(Remote {
                protocol: entry.protocol,
                own: entry.reply.destination,
                address: entry.reply.source,
                port: source_port(entry.reply.key),
            });
        }
    }

    pub(super) fn of(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn share(&self, part: u64) -> f64 {
        text::share(part, self.entries)
    }
}

/// The network that one customer, or one host with many addresses, most likely has.
fn network(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new_assert(address, length).trunc()
}

/// A key has the source port above the destination port.
fn destination_port(key: u32) -> u16 {
    let [_, _, high, low] = key.to_be_bytes();
    u16::from_be_bytes([high, low])
}

fn source_port(key: u32) -> u16 {
    let [high, low, _, _] = key.to_be_bytes();
    u16::from_be_bytes([high, low])
}
