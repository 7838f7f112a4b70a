//! Frames on the host: written for the sources of a scenario, or recorded, and read as the kernel's.

use std::net::IpAddr;

use ctguard_datapath::{
    classify::{self, Flow, Meaning},
    hash,
    packet::{self, Address, Network, Packet, Reader, protocol},
    verifier::OpaqueZero,
};
use ctguard_layout::{Class, Environment};

/// Bytes kept of a frame: more than any chain of headers that the parser reads.
const MOST_BYTES: usize = 2048;

/// Destination and source MAC address of every frame.
const STATIONS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
/// Types of Ethernet frames.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// One frame, aligned as the kernel aligns it.
#[repr(align(2))]
pub(super) struct Frame {
    bytes: [u8; MOST_BYTES],
    length: usize,
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuple {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Syn,
    SynAck,
    Ack,
    /// With this sequence number.
    Reset(u32),
    Datagram,
    Echo,
    EchoReply,
}

/// What opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// Stands for its tuple.
    pub(super) key: u64,
    pub(super) class: Class,
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
    pub(super) const fn empty() -> Self {
        Self { bytes: [0; MOST_BYTES], length: 0 }
    }

    /// Takes a recorded frame, as far as headers reach.
    pub(super) fn record(&mut self, frame: &[u8]) {
        self.length = 0;
        self.append(frame);
    }

    /// Takes a recorded packet that begins with its IP header.
    pub(super) fn record_packet(&mut self, packet: &[u8]) {
        self.length = 0;
        let is_ipv6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        self.append_all(&[&STATIONS, if is_ipv6 { &IPV6 } else { &IPV4 }, packet]);
    }

    /// Writes a packet without data.
    pub(super) fn write(&mut self, kind: Kind, tuple: &Tuple) {
        self.length = 0;
        self.append(&STATIONS);
        let transport_bytes = match kind {
            Kind::Syn | Kind::SynAck | Kind::Ack | Kind::Reset(_) => 20,
            Kind::Datagram | Kind::Echo | Kind::EchoReply => 8,
        };
        match (tuple.source, tuple.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.append(&IPV4);
                self.append(&[0x45, 0, 0, 20 + transport_bytes, 0, 0, 0x40, 0, 64]);
                self.append(&[protocol_of(kind, false), 0, 0]);
                self.append(&source.octets());
                self.append(&destination.octets());
            }
            (source, destination) => {
                self.append(&IPV6);
                self.append(&[0x60, 0, 0, 0, 0, transport_bytes]);
                self.append(&[protocol_of(kind, true), 64]);
                self.append(&ipv6_octets(source));
                self.append(&ipv6_octets(destination));
            }
        }
        let (from, to) = (tuple.source_port.to_be_bytes(), tuple.destination_port.to_be_bytes());
        let message = |of_ipv4, of_ipv6| if tuple.source.is_ipv4() { of_ipv4 } else { of_ipv6 };
        let segment = |flags| [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        match kind {
            Kind::Syn => self.append_all(&[&from, &to, &segment(0x02)]),
            Kind::SynAck => self.append_all(&[&from, &to, &segment(0x12)]),
            Kind::Ack => self.append_all(&[&from, &to, &segment(0x10)]),
            Kind::Reset(sequence) => {
                let rest = [0, 0, 0, 0, 0x50, 0x04, 0, 0, 0, 0, 0, 0];
                self.append_all(&[&from, &to, &sequence.to_be_bytes(), &rest]);
            }
            Kind::Datagram => self.append_all(&[&from, &to, &[0, 8, 0, 0]]),
            Kind::Echo => self.append_all(&[&[message(8, 128), 0, 0, 0], &from, &[0, 1]]),
            // The identifier is the client's port, which a reply has as its destination.
            Kind::EchoReply => self.append_all(&[&[message(0, 129), 0, 0, 0], &to, &[0, 1]]),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        let range = self.bytes().as_ptr_range();
        // SAFETY: the range lies in `self`, which is 2-byte aligned and outlives the reader.
        unsafe { Reader::new(range.start, range.end, OpaqueZero::new(0)) }
    }

    /// The flow that the frame opens, if it opens one: an ACK may, where `tcp_loose`.
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

    fn append_all(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.append(part);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        for (into, byte) in self.bytes.iter_mut().skip(self.length).zip(bytes) {
            *into = *byte;
        }
        self.length = (self.length + bytes.len()).min(MOST_BYTES);
    }
}

fn opening<A: Address>(
    packet: &Packet<A>,
    environment: &Environment,
    tcp_loose: bool,
) -> Option<Opening> {
    let Meaning::Of(flow) = classify::classify(packet) else { return None };
    let key = tuple_key(packet, flow, environment);
    flow.opens(tcp_loose).then_some(Opening { key, class: flow.class })
}

/// What stands for the tuple of a packet; that two have the same is as likely as two hashes of 64
/// bits.
pub(super) fn tuple_key<A: Address>(
    packet: &Packet<A>,
    flow: Flow,
    environment: &Environment,
) -> u64 {
    let Packet { source, destination, protocol, .. } = *packet;
    hash::tuple(&environment.fixed.tuple_key, source, destination, protocol, flow.key)
}

const fn protocol_of(kind: Kind, ipv6: bool) -> u8 {
    match kind {
        Kind::Syn | Kind::SynAck | Kind::Ack | Kind::Reset(_) => protocol::TCP,
        Kind::Datagram => protocol::UDP,
        Kind::Echo | Kind::EchoReply if ipv6 => protocol::ICMPV6,
        Kind::Echo | Kind::EchoReply => protocol::ICMP,
    }
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
