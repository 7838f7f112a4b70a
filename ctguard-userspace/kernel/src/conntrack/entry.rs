//! An entry of the table as ctnetlink writes it (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::net::IpAddr;

use ctguard_datapath::packet::protocol;
use netlink_packet_core::{NlasIterator, parse_ip, parse_u8, parse_u16_be, parse_u32_be};

use super::status;
use crate::net::find;

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
    /// Type, code and identifier.
    pub(super) const ICMP: [u16; 3] = [5, 6, 4];
    pub(super) const ICMPV6: [u16; 3] = [8, 9, 7];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As the first packet arrives.
    pub original: Tuple,
    /// As replies arrive. With NAT it is not the reverse of the original.
    pub reply: Tuple,
    /// IP protocol number.
    pub protocol: u8,
    /// Bits of [`status`].
    pub status: u32,
    /// Time until the entry expires.
    pub timeout_seconds: Option<u32>,
    /// Zone of both directions, or of the only one that has a zone; 0 is the default zone.
    pub zone: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// As `ctguard_datapath::classify` computes it for a packet of this direction.
    pub key: u32,
}

impl Entry {
    /// Whether packets were seen in both directions; for TCP, whether the handshake is complete.
    pub const fn is_answered(&self) -> bool {
        let proof =
            if self.protocol == protocol::TCP { status::ASSURED } else { status::SEEN_REPLY };
        self.status & proof != 0
    }

    /// Reads the attributes that follow the `nfgenmsg`; `None` if a necessary one is missing or has a
    /// wrong length.
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

/// `CTA_TUPLE_ORIG` or `CTA_TUPLE_REPLY`.
struct Direction {
    tuple: Tuple,
    protocol: u8,
    zone: Option<u16>,
}

impl Direction {
    fn decode(parts: &[u8]) -> Option<Self> {
        let parts = whole(parts)?;
        let (source, destination) = decode_addresses(find(parts, part::ADDRESSES)?)?;
        let transport = whole(find(parts, part::PROTOCOL)?)?;
        let protocol = parse_u8(find(transport, transport::NUMBER)?).ok()?;
        let key = key(transport, protocol, source)?;
        let zone = find(parts, part::ZONE).map(parse_u16_be).transpose().ok()?;
        Some(Self { tuple: Tuple { source, destination, key }, protocol, zone })
    }
}

/// Source and destination, of one family.
fn decode_addresses(addresses: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let addresses = whole(addresses)?;
    let [source, destination] = [
        (address::V4_SOURCE, address::V6_SOURCE),
        (address::V4_DESTINATION, address::V6_DESTINATION),
    ]
    .map(|(v4, v6)| parse_ip(find(addresses, v4).or_else(|| find(addresses, v6))?).ok());
    let (source, destination) = (source?, destination?);
    (source.is_ipv4() == destination.is_ipv4()).then_some((source, destination))
}

/// The key of a packet from `source`, or `None` if an attribute that it needs is missing.
fn key(transport: &[u8], protocol: u8, source: IpAddr) -> Option<u32> {
    let byte = |kind| parse_u8(find(transport, kind)?).ok().map(u32::from);
    let word = |kind| parse_u16_be(find(transport, kind)?).ok().map(u32::from);
    let ports = || Some(word(transport::SOURCE_PORT)? << 16 | word(transport::DESTINATION_PORT)?);
    let icmp = |[kind, code, identifier]: [u16; 3]| {
        Some(byte(kind)? << 24 | byte(code)? << 16 | word(identifier)?)
    };
    match protocol {
        protocol::TCP | protocol::UDP => ports(),
        // A kernel without a tracker for the protocol distinguishes its flows by addresses alone.
        protocol::UDPLITE | protocol::SCTP | protocol::DCCP => Some(ports().unwrap_or(0)),
        // `gre_pkt_to_tuple`: the call id of a PPTP packet is the destination's, that of the other
        // direction the source's. Other GRE has 0 for both.
        protocol::GRE => Some(word(transport::DESTINATION_PORT).unwrap_or(0)),
        protocol::ICMP if source.is_ipv4() => icmp(transport::ICMP),
        protocol::ICMPV6 if source.is_ipv6() => icmp(transport::ICMPV6),
        _ => Some(0),
    }
}

/// `None` if any attribute is cut short.
fn whole(attributes: &[u8]) -> Option<&[u8]> {
    NlasIterator::new(attributes).all(|attribute| attribute.is_ok()).then_some(attributes)
}

#[cfg(test)]
mod tests;
