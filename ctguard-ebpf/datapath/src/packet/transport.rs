//! Transport headers: ports, flags and message types.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Address, Fragment, Header, Malformed, protocol,
    reader::{Be16, Be32, Reader, word},
};

/// The fixed 20 bytes of a TCP header (RFC 9293, section 3.1).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct TcpHeader {
    source_port: Be16,
    destination_port: Be16,
    sequence: Be32,
    acknowledgment: Be32,
    /// Header length in 32-bit words (4 bits), reserved (4), flags (8).
    length_and_flags: Be16,
    window: Be16,
    checksum: Be16,
    urgent: Be16,
}

/// A UDP header (RFC 768); in UDP-Lite (RFC 3828) the length is a coverage.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct UdpHeader {
    source_port: Be16,
    destination_port: Be16,
    length: Be16,
    checksum: Be16,
}

/// An ICMP (RFC 792) or `ICMPv6` (RFC 4443) header of a message with an identifier.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct IcmpHeader {
    type_and_code: Be16,
    checksum: Be16,
    identifier: Be16,
    sequence: Be16,
}

/// A GRE header with a key, as PPTP uses it (RFC 2637, section 4.1).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct GreHeader {
    flags_and_version: Be16,
    protocol: Be16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct PptpKey {
    payload_length: Be16,
    call: Be16,
}

const TCP_HEADER_BYTES: u16 = 20;
const SHORT_HEADER_BYTES: u16 = 8;
const _: () = assert!(size_of::<TcpHeader>() == TCP_HEADER_BYTES as usize);
const _: () = assert!(size_of::<UdpHeader>() == SHORT_HEADER_BYTES as usize);
const _: () = assert!(size_of::<IcmpHeader>() == SHORT_HEADER_BYTES as usize);

/// A transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port, then destination port.
        ports: u32,
        /// Control bits.
        flags: TcpFlags,
        /// Sequence number.
        sequence: u32,
        /// Whether it has a payload.
        carries_data: bool,
    },
    /// UDP.
    Udp {
        /// Source port, then destination port.
        ports: u32,
    },
    /// ICMP or `ICMPv6`.
    Icmp(IcmpMessage),
    /// Another protocol.
    Other {
        /// What is in conntrack's tuple besides addresses: ports, a PPTP call, or 0.
        key: u32,
    },
    /// Its headers reach beyond what can be read.
    Unread,
    /// A later fragment: no ports.
    LaterFragment,
    /// A first fragment that does not hold the whole transport header, or a TCP fragment that
    /// could overlap one (RFC 1858, 3128, 7112).
    TinyFragment,
}

/// Control bits of a TCP segment. As a 32-bit word, because the compiler packs narrower fields
/// together and unpacks them again, which costs ten instructions per packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u32);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u32 = 0x01;
    /// Synchronize.
    pub const SYN: u32 = 0x02;
    /// Reset.
    pub const RST: u32 = 0x04;
    /// The acknowledgment field is valid.
    pub const ACK: u32 = 0x10;

    /// Whether any of `flags` is set.
    #[inline(always)]
    pub const fn any(self, flags: u32) -> bool {
        self.0 & flags != 0
    }
}

/// Type, code and identifier of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpMessage {
    /// Message type.
    pub kind: u32,
    /// Code.
    pub code: u32,
    /// Identifier, where the type has one.
    pub identifier: u32,
}

/// Parses the transport header at `packet`.
///
/// Fails if the packet is too short for the header, or if the header is impossible: conntrack makes
/// no entry then. If the packet is long enough but the frame's first buffer is not, it is
/// [`Transport::Unread`], because the frame may go on in another buffer.
#[inline(always)]
pub(super) fn parse<A: Address>(
    packet: &mut Reader<'_>,
    header: &Header<A>,
) -> Result<Transport, Malformed> {
    if header.fragment.is_later() {
        let overlaps = header.fragment == Fragment::AtOffsetOne && header.protocol == protocol::TCP;
        return Ok(if overlaps { Transport::TinyFragment } else { Transport::LaterFragment });
    }
    if header.unread_extensions {
        let first = header.fragment == Fragment::First;
        return Ok(if first { Transport::TinyFragment } else { Transport::Unread });
    }
    let parsed = match header.protocol {
        protocol::TCP => parse_tcp(packet, header.payload_bytes),
        protocol::UDP => parse_udp(packet, header.payload_bytes),
        protocol::ICMP if A::FAMILY == 4 => parse_icmp(packet, header.payload_bytes),
        protocol::ICMPV6 if A::FAMILY == 6 => parse_icmp(packet, header.payload_bytes),
        protocol::SCTP | protocol::DCCP | protocol::UDPLITE => Ok(parse_ports(packet)),
        protocol::GRE => Ok(parse_gre(packet)),
        _ => Ok(Transport::Other { key: 0 }),
    };
    match (parsed, header.fragment) {
        (Err(_), Fragment::First) => Ok(Transport::TinyFragment),
        (parsed, _) => parsed,
    }
}

#[inline(always)]
fn parse_tcp(packet: &mut Reader<'_>, bytes: u16) -> Result<Transport, Malformed> {
    if bytes < TCP_HEADER_BYTES {
        return Err(Malformed::Tcp);
    }
    let Some(header) = packet.take::<TcpHeader>() else { return Ok(Transport::Unread) };
    let [length, flags] = header.length_and_flags.get().to_be_bytes();
    let header_bytes = u16::from(length >> 4) * 4;
    if header_bytes < TCP_HEADER_BYTES || header_bytes > bytes {
        return Err(Malformed::Tcp);
    }
    Ok(Transport::Tcp {
        ports: word::<0, _>(header),
        flags: TcpFlags(u32::from(flags)),
        sequence: word::<{ offset_of!(TcpHeader, sequence) }, _>(header),
        carries_data: bytes > header_bytes,
    })
}

#[inline(always)]
fn parse_udp(packet: &mut Reader<'_>, bytes: u16) -> Result<Transport, Malformed> {
    if bytes < SHORT_HEADER_BYTES {
        return Err(Malformed::Udp);
    }
    let Some(header) = packet.take::<UdpHeader>() else { return Ok(Transport::Unread) };
    if header.length.get() < SHORT_HEADER_BYTES {
        return Err(Malformed::Udp);
    }
    Ok(Transport::Udp { ports: word::<0, _>(header) })
}

#[inline(always)]
fn parse_icmp(packet: &mut Reader<'_>, bytes: u16) -> Result<Transport, Malformed> {
    if bytes < SHORT_HEADER_BYTES {
        return Err(Malformed::Icmp);
    }
    let Some(header) = packet.take::<IcmpHeader>() else { return Ok(Transport::Unread) };
    let [kind, code] = header.type_and_code.get().to_be_bytes();
    Ok(Transport::Icmp(IcmpMessage {
        kind: u32::from(kind),
        code: u32::from(code),
        identifier: u32::from(header.identifier.get()),
    }))
}

/// The ports of SCTP, DCCP and UDP-Lite. A packet too short for them is tracked by its addresses,
/// as kernels do that do not know the protocol.
#[inline(always)]
fn parse_ports(packet: &mut Reader<'_>) -> Transport {
    let ports = packet.take().map_or(0, |ports: &Be32| ports.get());
    Transport::Other { key: ports }
}

/// Conntrack has the call in the tuple of PPTP (GRE version 1), and only addresses in those of
/// others.
#[inline(always)]
fn parse_gre(packet: &mut Reader<'_>) -> Transport {
    let key = match packet.take() {
        Some(header @ &GreHeader { .. }) if header.flags_and_version.get() & 0x7 == 1 => {
            packet.take().map_or(0, |key: &PptpKey| u32::from(key.call.get()))
        }
        _ => 0,
    };
    Transport::Other { key }
}
