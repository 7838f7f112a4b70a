//! An entry of the table as ctnetlink writes it (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::net::IpAddr;

use ctguard_datapath::packet::protocol;
use netlink_packet_core::{NlasIterator, parse_ip, parse_u8, parse_u16_be, parse_u32_be};

use super::status;

/// `enum ctattr_type`.
mod attribute {
    pub(super) const ORIGINAL: u16 = 1;
    pub(super) const REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const ZONE: u16 = 18;
}

/// `enum ctattr_tuple`.
mod part {
    pub(super) const ADDRESSES: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ZONE: u16 = 3;
}

/// `enum ctattr_ip`.
mod address {
    pub(super) const V4_SOURCE: u16 = 1;
    pub(super) const V4_DESTINATION: u16 = 2;
    pub(super) const V6_SOURCE: u16 = 3;
    pub(super) const V6_DESTINATION: u16 = 4;
}

/// `enum ctattr_l4proto`.
mod transport {
    pub(super) const NUMBER: u16 = 1;
    pub(super) const SOURCE_PORT: u16 = 2;
    pub(super) const DESTINATION_PORT: u16 = 3;
    pub(super) const ICMP_ID: u16 = 4;
    pub(super) const ICMP_TYPE: u16 = 5;
    pub(super) const ICMP_CODE: u16 = 6;
    pub(super) const ICMPV6_ID: u16 = 7;
    pub(super) const ICMPV6_TYPE: u16 = 8;
    pub(super) const ICMPV6_CODE: u16 = 9;
}

/// One entry, both directions as conntrack writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As its first packet arrived.
    pub original: Tuple,
    /// As answers arrive: of a NATed flow not the reverse of the original.
    pub reply: Tuple,
    /// IP protocol number.
    pub protocol: u8,
    /// Bits of [`status`].
    pub status: u32,
    /// What is left of its life.
    pub timeout_seconds: Option<u32>,
    /// Of both directions, or of the one that has a zone of its own; 0 is the default zone.
    pub zone: u16,
}

/// One direction of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The key that `ctguard_datapath::classify` gives a packet that arrives in this direction.
    pub key: u32,
}

impl Entry {
    /// Whether its flow goes both ways; of TCP, whether the handshake is complete.
    pub const fn is_answered(&self) -> bool {
        let proof =
            if self.protocol == protocol::TCP { status::ASSURED } else { status::SEEN_REPLY };
        self.status & proof != 0
    }

    /// Reads the attributes that follow the `nfgenmsg`, or `None` where one that is needed is
    /// missing or of another length. Attributes of no interest are passed over.
    pub fn decode(attributes: &[u8]) -> Option<Self> {
        let (mut original, mut reply, mut status) = (None, None, None);
        let (mut timeout_seconds, mut zone) = (None, None);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.ok()?;
            let value = attribute.value();
            match attribute.kind() {
                attribute::ORIGINAL => original = Some(Direction::decode(value)?),
                attribute::REPLY => reply = Some(Direction::decode(value)?),
                attribute::STATUS => status = Some(parse_u32_be(value).ok()?),
                attribute::TIMEOUT => timeout_seconds = Some(parse_u32_be(value).ok()?),
                attribute::ZONE => zone = Some(parse_u16_be(value).ok()?),
                _ => {}
            }
        }
        let (original, reply) = (original?, reply?);
        if original.protocol != reply.protocol {
            return None;
        }
        Some(Self {
            original: original.tuple,
            reply: reply.tuple,
            protocol: original.protocol,
            status: status?,
            timeout_seconds,
            zone: zone.or(original.zone).or(reply.zone).unwrap_or(0),
        })
    }
}

/// What `CTA_TUPLE_ORIG` and `CTA_TUPLE_REPLY` hold.
struct Direction {
    tuple: Tuple,
    protocol: u8,
    zone: Option<u16>,
}

impl Direction {
    fn decode(parts: &[u8]) -> Option<Self> {
        let (mut addresses, mut transport, mut zone) = (None, None, None);
        for attribute in NlasIterator::new(parts) {
            let attribute = attribute.ok()?;
            let value = attribute.value();
            match attribute.kind() {
                part::ADDRESSES => addresses = Some(decode_addresses(value)?),
                part::PROTOCOL => transport = Some(Transport::decode(value)?),
                part::ZONE => zone = Some(parse_u16_be(value).ok()?),
                _ => {}
            }
        }
        let ((source, destination), transport) = (addresses?, transport?);
        let protocol = transport.number?;
        let key = transport.key(protocol, source)?;
        Some(Self { tuple: Tuple { source, destination, key }, protocol, zone })
    }
}

/// Source and destination, of one family.
fn decode_addresses(addresses: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (mut source, mut destination) = (None, None);
    for attribute in NlasIterator::new(addresses) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            address::V4_SOURCE | address::V6_SOURCE => source = Some(parse_ip(value).ok()?),
            address::V4_DESTINATION | address::V6_DESTINATION => {
                destination = Some(parse_ip(value).ok()?);
            }
            _ => {}
        }
    }
    let (source, destination) = (source?, destination?);
    (source.is_ipv4() == destination.is_ipv4()).then_some((source, destination))
}

/// What `CTA_TUPLE_PROTO` holds.
#[derive(Default)]
struct Transport {
    number: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    icmp: Icmp,
    icmpv6: Icmp,
}

#[derive(Default)]
struct Icmp {
    kind: Option<u8>,
    code: Option<u8>,
    identifier: Option<u16>,
}

impl Transport {
    fn decode(attributes: &[u8]) -> Option<Self> {
        let mut transport = Self::default();
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.ok()?;
            let value = attribute.value();
            let (byte, word) = (|| parse_u8(value).ok(), || parse_u16_be(value).ok());
            match attribute.kind() {
                transport::NUMBER => transport.number = Some(byte()?),
                transport::SOURCE_PORT => transport.source_port = Some(word()?),
                transport::DESTINATION_PORT => transport.destination_port = Some(word()?),
                transport::ICMP_ID => transport.icmp.identifier = Some(word()?),
                transport::ICMP_TYPE => transport.icmp.kind = Some(byte()?),
                transport::ICMP_CODE => transport.icmp.code = Some(byte()?),
                transport::ICMPV6_ID => transport.icmpv6.identifier = Some(word()?),
                transport::ICMPV6_TYPE => transport.icmpv6.kind = Some(byte()?),
                transport::ICMPV6_CODE => transport.icmpv6.code = Some(byte()?),
                _ => {}
            }
        }
        Some(transport)
    }

    /// The key of a packet from `source`, or `None` where what makes it is missing.
    fn key(&self, protocol: u8, source: IpAddr) -> Option<u32> {
        match protocol {
            protocol::TCP | protocol::UDP => self.ports(),
            // A kernel without a tracker for the protocol tells its flows by addresses alone.
            protocol::UDPLITE | protocol::SCTP | protocol::DCCP => Some(self.ports().unwrap_or(0)),
            // `gre_pkt_to_tuple`: the packet's own call is the destination's, that of the other
            // way the source's. GRE that is not PPTP's has 0 for both.
            protocol::GRE => Some(u32::from(self.destination_port.unwrap_or(0))),
            protocol::ICMP if source.is_ipv4() => self.icmp.key(),
            protocol::ICMPV6 if source.is_ipv6() => self.icmpv6.key(),
            _ => Some(0),
        }
    }

    fn ports(&self) -> Option<u32> {
        Some(u32::from(self.source_port?) << 16 | u32::from(self.destination_port?))
    }
}

impl Icmp {
    fn key(&self) -> Option<u32> {
        let (kind, code) = (u32::from(self.kind?), u32::from(self.code?));
        Some(kind << 24 | code << 16 | u32::from(self.identifier?))
    }
}

#[cfg(test)]
mod tests;
