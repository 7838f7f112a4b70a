//! Frames that the sources of a scenario send, or that were recorded.

use std::net::IpAddr;

use ctguard_control::sources::SourceScope;
use ctguard_datapath::{
    classify::{self, Flow, Meaning},
    hash,
    packet::{self, Address, Ipv4, Network, Packet, Reader, protocol},
    verifier::OpaqueZero,
};
use ctguard_layout::{Class, Environment};

/// More than any chain of headers that the parser reads.
const MOST_BYTES: usize = 2048;

/// Ethernet headers, all between the same two stations.
const ETHERNET_IPV4: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
const ETHERNET_IPV6: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];

/// One frame, aligned as the kernel aligns it.
#[repr(align(2))]
pub struct Frame {
    bytes: [u8; MOST_BYTES],
    length: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Syn,
    SynAck,
    Ack,
    /// With this sequence number.
    Reset(u32),
    Datagram,
    Echo,
    EchoReply,
}

/// The flow that a packet opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// See [`tuple_key`].
    pub(super) key: u64,
    pub(super) class: Class,
    pub(super) scope: SourceScope,
}

impl Tuple {
    pub(super) const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

impl Frame {
    pub const fn empty() -> Self {
        Self { bytes: [0; MOST_BYTES], length: 0 }
    }

    /// Takes a recorded frame, as far as headers reach.
    pub(super) fn record(&mut self, frame: &[u8]) {
        self.set(&[frame]);
    }

    /// Takes a recorded packet that begins with its IP header.
    pub(super) fn record_packet(&mut self, packet: &[u8]) {
        let is_ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        self.set(&[if is_ipv6 { &ETHERNET_IPV6 } else { &ETHERNET_IPV4 }, packet]);
    }

    /// Writes a packet without data and without checksums.
    pub fn write(&mut self, kind: Kind, tuple: &Tuple) {
        let (from, to) = (tuple.source_port.to_be_bytes(), tuple.destination_port.to_be_bytes());
        let tcp = |sequence: u32, flags| {
            let sequence = sequence.to_be_bytes();
            let rest = [0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            (protocol::TCP, [&from[..], &to, &sequence, &rest].concat())
        };
        let is_ipv4 = tuple.source.is_ipv4();
        // An echo has the client's port as its identifier.
        let echo = |ipv4_type, ipv6_type, identifier: [u8; 2]| {
            let (protocol, message) =
                if is_ipv4 { (protocol::ICMP, ipv4_type) } else { (protocol::ICMPV6, ipv6_type) };
            (protocol, [&[message, 0, 0, 0][..], &identifier, &[0, 1]].concat())
        };
        let (protocol, transport) = match kind {
            Kind::Syn => tcp(1, 0x02),
            Kind::SynAck => tcp(1, 0x12),
            Kind::Ack => tcp(1, 0x10),
            Kind::Reset(sequence) => tcp(sequence, 0x04),
            Kind::Datagram => (protocol::UDP, [&from[..], &to, &[0, 8, 0, 0]].concat()),
            Kind::Echo => echo(8, 128, from),
            Kind::EchoReply => echo(0, 129, to),
        };
        // No segment is longer than 20 bytes.
        let length = u8::try_from(transport.len()).unwrap_or(u8::MAX);
        match (tuple.source, tuple.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ip = [0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, 64, protocol, 0, 0];
                let (source, destination) = (source.octets(), destination.octets());
                self.set(&[&ETHERNET_IPV4, &ip, &source, &destination, &transport]);
            }
            (source, destination) => {
                let ip = [0x60, 0, 0, 0, 0, length, protocol, 64];
                let (source, destination) = (ipv6_octets(source), ipv6_octets(destination));
                self.set(&[&ETHERNET_IPV6, &ip, &source, &destination, &transport]);
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    pub fn reader(&self) -> Reader<'_> {
        let range = self.bytes().as_ptr_range();
        // SAFETY: the range lies in `self`, which is 2-byte aligned and outlives the reader.
        unsafe { Reader::new(range.start, range.end, OpaqueZero::new(0)) }
    }

    /// The flow that the frame opens, if any; with `tcp_loose` an ACK may open one.
    pub(super) fn opening(&self, environment: &Environment, tcp_loose: bool) -> Option<Opening> {
        let mut reader = self.reader();
        match packet::parse_link(&mut reader).ok()?.network {
            Network::Ipv4 => {
                opening(&packet::parse_ipv4(&mut reader).ok()?, environment, tcp_loose)
            }
            Network::Ipv6 => {
                opening(&packet::parse_ipv6(&mut reader).ok()?, environment, tcp_loose)
            }
            Network::NotIp | Network::Unparsed => None,
        }
    }

    fn set(&mut self, parts: &[&[u8]]) {
        let bytes = parts.iter().copied().flatten();
        self.length = self.bytes.iter_mut().zip(bytes).map(|(into, byte)| *into = *byte).count();
    }
}

fn opening<A: Address>(
    packet: &Packet<A>,
    environment: &Environment,
    tcp_loose: bool,
) -> Option<Opening> {
    let Meaning::Of(flow) = classify::classify(packet, &environment.daemon) else { return None };
    let key = tuple_key(packet, flow, environment);
    let scope = packet.source.source_scope();
    let scope = match u32::try_from(scope) {
        Ok(address) if A::FAMILY == Ipv4::FAMILY => SourceScope::V4(address),
        Ok(_) | Err(_) => SourceScope::V6(scope),
    };
    flow.opens(tcp_loose).then_some(Opening { key, class: flow.class, scope })
}

/// A hash that stands for the packet's tuple.
pub(super) fn tuple_key<A: Address>(
    packet: &Packet<A>,
    flow: Flow,
    environment: &Environment,
) -> u64 {
    let Packet { source, destination, protocol, .. } = *packet;
    hash::tuple(&environment.fixed.tuple_key, source, destination, protocol, flow.key)
}

fn ipv6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::testing::environment;

    #[test]
    fn what_is_written_is_read_back_as_the_opening_of_a_flow() {
        for (source, destination) in [("192.0.2.1", "198.51.100.1"), ("2001:db8::1", "2001:db8::2")]
        {
            let tuple = tuple(source, destination);
            let of = |kind| {
                let mut frame = Frame::empty();
                frame.write(kind, &tuple);
                frame.opening(&environment(), false).map(|opening| opening.class)
            };
            assert_eq!(of(Kind::Syn), Some(Class::Tcp), "{source}");
            assert_eq!(of(Kind::Datagram), Some(Class::Udp), "{source}");
            assert_eq!(of(Kind::Echo), Some(Class::Other), "{source}");
            assert_eq!(of(Kind::Ack), None, "{source}");
            assert_eq!(of(Kind::SynAck), None, "{source}");
            assert_eq!(of(Kind::EchoReply), None, "{source}");
        }
    }

    #[test]
    fn a_tuple_has_a_key_of_its_own() {
        let key = |tuple: &Tuple| {
            let mut frame = Frame::empty();
            frame.write(Kind::Syn, tuple);
            frame.opening(&environment(), false).unwrap().key
        };
        let tuple = tuple("192.0.2.1", "198.51.100.1");
        assert_eq!(key(&tuple), key(&tuple));
        assert_ne!(key(&tuple), key(&Tuple { source_port: 4001, ..tuple }));
    }

    fn tuple(source: &str, destination: &str) -> Tuple {
        Tuple {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: 4000,
            destination_port: 443,
        }
    }
}
