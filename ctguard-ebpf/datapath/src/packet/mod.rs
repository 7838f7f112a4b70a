//! Parses a frame: link, network and transport headers, in this order.

pub mod address;
mod ipv4;
mod ipv6;
pub(crate) mod link;
mod plain;
pub(crate) mod reader;
mod transport;
pub(crate) mod writer;

pub use address::{Address, Ipv4, Ipv6};
pub(crate) use link::skip as skip_link;
pub use link::{Frame, Network, parse as parse_link};
pub(crate) use plain::parse_plain;
pub use reader::Reader;
pub use transport::{IcmpMessage, TcpFlags, Transport};
pub use writer::Writer;

use crate::layout::Outcome;

/// The header that is cut short or impossible. Conntrack cannot track such a packet
/// (`nf_conntrack_in`, `tcp_error`, `udp_error`), so it passes and is counted by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Malformed {
    /// Ethernet, VLAN or `PPPoE`.
    Link,
    /// IPv4.
    Ipv4,
    /// IPv6 or one of its extension headers.
    Ipv6,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or `ICMPv6`.
    Icmp,
}

impl Malformed {
    #[inline(always)]
    pub(crate) const fn outcome(self) -> Outcome {
        match self {
            Self::Link => Outcome::MalformedLink,
            Self::Ipv4 => Outcome::MalformedIpv4,
            Self::Ipv6 => Outcome::MalformedIpv6,
            Self::Tcp => Outcome::MalformedTcp,
            Self::Udp => Outcome::MalformedUdp,
            Self::Icmp => Outcome::MalformedIcmp,
        }
    }
}

/// Numbers of transport protocols (IANA protocol numbers).
pub mod protocol {
    #![expect(missing_docs, reason = "each is named as the registry names it")]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
    pub const UDPLITE: u8 = 136;
}

/// Where a packet lies in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fragment {
    /// Not fragmented.
    Whole,
    First,
    /// At offset 1, eight bytes into the datagram: RFC 3128 overlaps a TCP header with one.
    AtOffsetOne,
    Later,
}

impl Fragment {
    /// `offset` is in units of eight bytes.
    #[inline(always)]
    const fn at(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First,
            (1, _) => Self::AtOffsetOne,
            _ => Self::Later,
        }
    }

    /// Whether the transport header lies in another packet.
    #[inline(always)]
    const fn is_later(self) -> bool {
        matches!(self, Self::AtOffsetOne | Self::Later)
    }
}

/// A network header of either family.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Header<A> {
    source: A,
    destination: A,
    /// Transport protocol, or the extension header that the parser stopped at.
    protocol: u8,
    /// Bytes after the headers, according to the header's length field.
    payload_bytes: u16,
    fragment: Fragment,
    /// The chain of extension headers goes on beyond what can be read.
    unread_extensions: bool,
}

/// A packet that conntrack would look at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Transport protocol.
    pub protocol: u8,
    /// Its transport header.
    pub transport: Transport,
}

/// Where the network header begins, in bytes from the start of `frame`; `None` if the frame ends
/// before it.
#[inline(always)]
pub fn network_offset(mut frame: Reader<'_>) -> Option<u32> {
    skip_link(&mut frame)
}

/// Parses an IPv4 packet from its network header on.
#[inline(always)]
pub fn parse_ipv4(packet: &mut Reader<'_>) -> Result<Packet<Ipv4>, Malformed> {
    let header = ipv4::parse(packet)?;
    with_transport(packet, header)
}

/// Parses an IPv6 packet from its network header on.
#[inline(always)]
pub fn parse_ipv6(packet: &mut Reader<'_>) -> Result<Packet<Ipv6>, Malformed> {
    let header = ipv6::parse(packet)?;
    with_transport(packet, header)
}

#[inline(always)]
fn with_transport<A: Address>(
    packet: &mut Reader<'_>,
    header: Header<A>,
) -> Result<Packet<A>, Malformed> {
    let transport = transport::parse(packet, &header)?;
    let Header { source, destination, protocol, .. } = header;
    Ok(Packet { source, destination, protocol, transport })
}

#[cfg(test)]
mod tests;
