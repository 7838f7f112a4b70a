//! Bytes to a packet, or why not: link, network, transport, in this order.

pub mod address;
mod ipv4;
mod ipv6;
pub(crate) mod link;
mod malformed;
pub(crate) mod reader;
mod transport;
pub(crate) mod writer;

pub use address::{Address, Ipv4, Ipv6};
pub use link::{Frame, Network};
pub use malformed::Malformed;
pub use reader::Reader;
pub use transport::{IcmpMessage, TcpFlags, Transport};
pub use writer::Writer;

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
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// The first of several.
    First,
    /// The second eight bytes of the datagram and what follows: what RFC 3128 overlaps with.
    AtOffsetOne,
    /// Any later one.
    Later,
}

impl Fragment {
    /// `offset` in units of eight bytes; `more` fragments follow.
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
    #[must_use]
    pub const fn is_later(self) -> bool {
        matches!(self, Self::AtOffsetOne | Self::Later)
    }
}

/// What a network header of either family tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Transport protocol, or the extension header that the parser stopped at.
    pub protocol: u8,
    /// Bytes behind the headers, by the header's own account.
    pub payload_bytes: u16,
    /// Which part of its datagram.
    pub fragment: Fragment,
    /// The chain of extension headers goes on beyond what can be read.
    pub unread_extensions: bool,
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
    /// What its transport header tells.
    pub transport: Transport,
}

/// Parses the link headers.
///
/// # Errors
/// [`Malformed::Link`] when the frame ends inside them.
#[inline(always)]
pub fn parse_link<'p>(packet: &mut Reader<'p>) -> Result<Frame<'p>, Malformed> {
    link::parse(packet)
}

/// Where the network header begins, in bytes from the start of the frame that `packet` stands at;
/// `None` when the frame ends before it.
#[inline(always)]
#[must_use]
pub fn network_offset(mut packet: Reader<'_>) -> Option<u32> {
    link::skip(&mut packet)
}

/// Steps over the link headers that `packet` stands at; `None` when the frame ends before.
#[inline(always)]
pub(crate) fn skip_link(packet: &mut Reader<'_>) -> Option<()> {
    link::skip(packet).map(|_| ())
}

/// Parses an IPv4 packet from its network header on.
///
/// # Errors
/// The header that is malformed.
#[inline(always)]
pub fn parse_ipv4(packet: &mut Reader<'_>) -> Result<Packet<Ipv4>, Malformed> {
    let header = ipv4::parse(packet)?;
    with_transport(packet, header)
}

/// Parses an IPv6 packet from its network header on.
///
/// # Errors
/// The header that is malformed.
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
    Ok(Packet {
        source: header.source,
        destination: header.destination,
        protocol: header.protocol,
        transport,
    })
}

#[cfg(test)]
mod tests;
