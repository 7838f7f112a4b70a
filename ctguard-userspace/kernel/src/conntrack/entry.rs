//! An entry of the table as ctnetlink writes it (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::net::IpAddr;

use ctguard_datapath::packet::protocol;
use netlink_packet_core::{
    NLA_HEADER_SIZE, NLA_TYPE_MASK, parse_ip, parse_u8, parse_u16_be, parse_u32_be,
};

use super::{status, tcp_state::TcpState};

/// `enum ctattr_type`.
mod attribute {
    pub(super) const ORIGINAL: u16 = 1;
    pub(super) const REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOCOL_STATE: u16 = 4;
    pub(super) const HELPER: u16 = 5;
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
    /// `None` for other protocols.
    pub tcp_state: Option<TcpState>,
    /// A helper follows the connection (FTP, SIP …).
    pub has_helper: bool,
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

    /// Whether NAT gave the flow, which has ports, another source port: an entry made anew may get yet
    /// another.
    pub const fn has_another_source_port(&self) -> bool {
        self.reply.key & 0xffff != self.original.key >> 16
    }

    /// Reads the attributes that follow the `nfgenmsg`; `None` if a necessary one is missing or has a
    /// wrong length.
    pub fn decode(attributes: &[u8]) -> Option<Self> {
        let [original, reply, status, state, helper, timeout, zone] = values(
            attributes,
            &[
                attribute::ORIGINAL,
                attribute::REPLY,
                attribute::STATUS,
                attribute::PROTOCOL_STATE,
                attribute::HELPER,
                attribute::TIMEOUT,
                attribute::ZONE,
            ],
        )?;
        let (original, reply) = (Direction::decode(original?)?, Direction::decode(reply?)?);
        let zone = zone.map(parse_u16_be).transpose().ok()?;
        if original.protocol != reply.protocol {
            return None;
        }
        Some(Self {
            original: original.tuple,
            reply: reply.tuple,
            protocol: original.protocol,
            status: parse_u32_be(status?).ok()?,
            tcp_state: state.and_then(TcpState::decode),
            has_helper: helper.is_some(),
            timeout_seconds: timeout.map(parse_u32_be).transpose().ok()?,
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
        let [addresses, transport, zone] =
            values(parts, &[part::ADDRESSES, part::PROTOCOL, part::ZONE])?;
        let (source, destination) = decode_addresses(addresses?)?;
        let transport = Transport::read(transport?)?;
        let protocol = transport.byte(transport::NUMBER)?;
        let key = transport.key(protocol, source)?;
        let zone = zone.map(parse_u16_be).transpose().ok()?;
        Some(Self { tuple: Tuple { source, destination, key }, protocol, zone })
    }
}

/// Source and destination, of one family.
fn decode_addresses(addresses: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let [v4_source, v4_destination, v6_source, v6_destination] = values(
        addresses,
        &[address::V4_SOURCE, address::V4_DESTINATION, address::V6_SOURCE, address::V6_DESTINATION],
    )?;
    let source = parse_ip(v4_source.or(v6_source)?).ok()?;
    let destination = parse_ip(v4_destination.or(v6_destination)?).ok()?;
    (source.is_ipv4() == destination.is_ipv4()).then_some((source, destination))
}

/// Values of `enum ctattr_l4proto`, from 1 on.
struct Transport<'b>([Option<&'b [u8]>; 9]);

impl<'b> Transport<'b> {
    fn read(attributes: &'b [u8]) -> Option<Self> {
        values(attributes, &[1, 2, 3, 4, 5, 6, 7, 8, 9]).map(Self)
    }

    fn of(&self, kind: u16) -> Option<&'b [u8]> {
        *self.0.get(usize::from(kind).checked_sub(1)?)?
    }

    fn byte(&self, kind: u16) -> Option<u8> {
        parse_u8(self.of(kind)?).ok()
    }

    fn word(&self, kind: u16) -> Option<u32> {
        parse_u16_be(self.of(kind)?).ok().map(u32::from)
    }

    /// The key of a packet from `source`, or `None` if an attribute that it needs is missing.
    fn key(&self, protocol: u8, source: IpAddr) -> Option<u32> {
        let ports = || {
            Some(
                self.word(transport::SOURCE_PORT)? << 16
                    | self.word(transport::DESTINATION_PORT)?,
            )
        };
        let icmp = |[kind, code, identifier]: [u16; 3]| {
            let [kind, code] = [kind, code].map(|it| self.byte(it).map(u32::from));
            Some(kind? << 24 | code? << 16 | self.word(identifier)?)
        };
        match protocol {
            protocol::TCP | protocol::UDP => ports(),
            // A kernel without a tracker for the protocol distinguishes its flows by addresses alone.
            protocol::UDPLITE | protocol::SCTP | protocol::DCCP => Some(ports().unwrap_or(0)),
            // `gre_pkt_to_tuple`: the call id of a PPTP packet is the destination's, that of the other
            // direction the source's. Other GRE has 0 for both.
            protocol::GRE => Some(self.word(transport::DESTINATION_PORT).unwrap_or(0)),
            protocol::ICMP if source.is_ipv4() => icmp(transport::ICMP),
            protocol::ICMPV6 if source.is_ipv6() => icmp(transport::ICMPV6),
            _ => Some(0),
        }
    }
}

/// The value of each kind of attribute, in one pass; `None` if any attribute is cut short.
///
/// Tables have a million entries of thirty attributes each.
fn values<'b, const N: usize>(
    mut bytes: &'b [u8],
    kinds: &[u16; N],
) -> Option<[Option<&'b [u8]>; N]> {
    let mut values = [None; N];
    while let Some(&[low, high, kind, flags, ..]) = bytes.first_chunk::<NLA_HEADER_SIZE>() {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let kind = u16::from_ne_bytes([kind, flags]) & NLA_TYPE_MASK;
        let value = bytes.get(NLA_HEADER_SIZE..length)?;
        if let Some(position) = kinds.iter().position(|wanted| *wanted == kind) {
            values[position] = Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    bytes.is_empty().then_some(values)
}

#[cfg(test)]
mod tests;
