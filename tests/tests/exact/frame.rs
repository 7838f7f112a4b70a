//! Frames by their bytes, with every checksum right until something breaks it.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMP: u8 = 1;
pub(crate) const IPIP: u8 = 4;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const DCCP: u8 = 33;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const GRE: u8 = 47;
pub(crate) const ESP: u8 = 50;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
pub(crate) const OSPF: u8 = 89;
pub(crate) const SCTP: u8 = 132;
pub(crate) const UDPLITE: u8 = 136;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// Where the IP header of an untagged frame begins.
pub(crate) const NETWORK_AT: usize = 14;
const MORE_FRAGMENTS: u16 = 0x2000;

/// From one hardware address to another.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) source: [u8; 6],
    pub(crate) destination: [u8; 6],
}

/// An IP packet before it is laid out.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) hops: u8,
    pub(crate) identification: u16,
    /// Of IPv4; a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// Of IPv6, in their order; each body is what follows the byte that names the next header.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
}

impl Packet {
    pub(crate) fn new(from: IpAddr, to: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            from,
            to,
            protocol,
            payload,
            hops: 64,
            identification: 1,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The frame.
    pub(crate) fn frame(&self, link: Link) -> Vec<u8> {
        let (first, body) = self.body();
        ethernet(link, self.from, &self.header(first, &body, 0))
    }

    /// The frames of the packet cut at these multiples of eight bytes of its body, ascending.
    pub(crate) fn fragments(&self, link: Link, cuts: &[usize]) -> Vec<Vec<u8>> {
        let (first, body) = self.body();
        let mut bounds = vec![0];
        bounds.extend(cuts.iter().map(|cut| cut * 8).filter(|cut| *cut < body.len()));
        bounds.dedup();
        bounds.push(body.len());
        let piece = |part: &[usize]| {
            let (start, end) = (part[0], part[1]);
            self.fragment(link, first, &body[start..end], start, end < body.len())
        };
        bounds.windows(2).map(piece).collect()
    }

    /// One fragment of a datagram: `start` in bytes.
    pub(crate) fn fragment(
        &self,
        link: Link,
        next: u8,
        piece: &[u8],
        start: usize,
        more: bool,
    ) -> Vec<u8> {
        let units = u16::try_from(start / 8).unwrap_or(0);
        let packet = match self.from {
            IpAddr::V4(_) => {
                let field = units | if more { MORE_FRAGMENTS } else { 0 };
                self.header(next, piece, field)
            }
            IpAddr::V6(_) => {
                let mut body = vec![next, 0];
                body.extend((units << 3 | u16::from(more)).to_be_bytes());
                body.extend([0, 0]);
                body.extend(self.identification.to_be_bytes());
                body.extend(piece);
                self.header(FRAGMENT, &body, 0)
            }
        };
        ethernet(link, self.from, &packet)
    }

    /// What follows the fixed header, and the protocol that it begins with.
    fn body(&self) -> (u8, Vec<u8>) {
        let mut next = self.protocol;
        let mut body = self.payload.clone();
        for (kind, rest) in self.extensions.iter().rev() {
            let header = [&[next], rest.as_slice(), &body].concat();
            (next, body) = (*kind, header);
        }
        (next, body)
    }

    fn header(&self, protocol: u8, body: &[u8], fragment: u16) -> Vec<u8> {
        let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
        let mut packet = Vec::new();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header_bytes = 20 + self.options.len();
                packet.extend([0x40 | u8::try_from(header_bytes / 4).unwrap_or(15), 0]);
                packet.extend(length(header_bytes + body.len()));
                packet.extend(self.identification.to_be_bytes());
                packet.extend(fragment.to_be_bytes());
                packet.extend([self.hops, protocol, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(&self.options);
                set_header_checksum(&mut packet);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet.extend([0x60, 0, 0, 0]);
                packet.extend(length(body.len()));
                packet.extend([protocol, self.hops]);
                packet.extend(from.octets());
                packet.extend(to.octets());
            }
            _ => {}
        }
        packet.extend(body);
        packet
    }
}

/// An Ethernet frame round an IP packet of this address's family.
pub(crate) fn ethernet(link: Link, family: IpAddr, packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if family.is_ipv4() { [0x08, 0] } else { [0x86, 0xdd] };
    [&link.destination, &link.source, &ethertype[..], packet].concat()
}

/// Makes the checksum of the IPv4 header right again.
pub(crate) fn set_header_checksum(packet: &mut [u8]) {
    let bytes = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..bytes]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
}

/// The Internet checksum (RFC 1071) of these bytes, in host order.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_be()
}

/// The checksum of a transport header with its pseudo-header, in host order; 0 when `payload` has
/// the right one in it.
pub(crate) fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let sum = Sum16BitWords::new();
    let sum = match (from, to) {
        _ if protocol == ICMP => sum,
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut sum = sum;
            sum = sum.add_4bytes(from.octets()).add_4bytes(to.octets());
            pseudo(sum, protocol, payload.len())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut sum = sum;
            sum = sum.add_16bytes(from.octets()).add_16bytes(to.octets());
            pseudo(sum, protocol, payload.len())
        }
        _ => sum,
    };
    sum.add_slice(payload).ones_complement().to_be()
}

fn pseudo(sum: Sum16BitWords, protocol: u8, bytes: usize) -> Sum16BitWords {
    let length = u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    sum.add_2bytes([0, protocol]).add_2bytes(length)
}

/// The `CRC32c` of an SCTP packet whose own field is zero (RFC 9260, appendix A), as it lies on the
/// wire.
pub(crate) fn crc32c(bytes: &[u8]) -> [u8; 4] {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { REVERSED_POLYNOMIAL } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}

/// Where a protocol's header has its checksum.
pub(crate) const fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP | UDPLITE => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    }
}

/// Writes the right checksum into a transport header, if it has one.
pub(crate) fn set_transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, payload: &mut [u8]) {
    if protocol == SCTP && payload.len() >= 12 {
        payload[8..12].fill(0);
        let crc = crc32c(payload);
        payload[8..12].copy_from_slice(&crc);
    }
    let Some(at) = checksum_at(protocol).filter(|at| payload.len() >= at + 2) else { return };
    payload[at..at + 2].fill(0);
    let sum = transport_checksum(from, to, protocol, payload);
    let sum = if sum == 0 && protocol != ICMP { u16::MAX } else { sum };
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The frame behind VLAN tags with these types and identifiers, the outermost first.
pub(crate) fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for (ethertype, identifier) in tags {
        tagged.extend(ethertype.to_be_bytes());
        tagged.extend(identifier.to_be_bytes());
    }
    tagged.extend(&frame[12..]);
    tagged
}

/// The frame's packet in a PPPoE session.
pub(crate) fn in_pppoe(frame: &[u8]) -> Vec<u8> {
    let protocol: u16 = if frame[12..14] == [0x08, 0] { 0x0021 } else { 0x0057 };
    let length = u16::try_from(2 + frame.len() - NETWORK_AT).unwrap_or(0);
    let mut session = frame[..12].to_vec();
    session.extend([0x88, 0x64, 0x11, 0, 0, 1]);
    session.extend(length.to_be_bytes());
    session.extend(protocol.to_be_bytes());
    session.extend(&frame[NETWORK_AT..]);
    session
}
