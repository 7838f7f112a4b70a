//! The frame that a strand of a flood starts from, made by well-kept libraries, and where in it
//! lies what the generator fills in.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use crc::{CRC_32_ISCSI, Crc};
use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, PacketBuilder, PacketBuilderStep};

use super::{
    Route,
    kind::{Part, Segment},
    layout::{CLIENT_SEQUENCE, SERVER_SEQUENCE},
    sources::Ends,
};
use crate::addresses::{EXPOSED_PORTS, Family};

/// IPv6 extension headers before the TCP header of `long-extensions`: destination options of 8
/// bytes each.
pub const EXTENSION_HEADERS: usize = 16;
/// The lowest source port drawn.
const FIRST_PORT: u16 = 1024;
/// Where the network header lies in a frame.
const NETWORK_AT: usize = 14;
/// TCP header bytes in the first of two fragments, the least that fragments can hold.
const TINY: usize = 8;
/// What UDP and echo requests carry.
const PAYLOAD: &[u8] = b"flood...";

/// A whole packet in a frame, in one piece.
pub(super) struct Whole {
    pub(super) bytes: Vec<u8>,
    pub(super) protocol: IpNumber,
    pub(super) transport_at: usize,
    /// Where the transport's checksum lies, unless it is constant.
    pub(super) checksum_at: Option<usize>,
    /// Where the number lies that is drawn for each packet, if any is.
    pub(super) drawn_at: Option<usize>,
    /// The numbers drawn.
    pub(super) drawn: (u16, u16),
}

/// A frame as a well-kept library makes it.
pub(super) fn whole(segment: Segment, ends: Ends, route: Route) -> Result<Whole> {
    let packet = ip(ends, route)?;
    let port = route.port;
    let mut bytes = Vec::new();
    // Offsets in the transport header.
    let (protocol, checksum, drawn_at, drawn) = match segment {
        Segment::Syn | Segment::Fragment(_) | Segment::SynBehindExtensions => {
            packet.tcp(0, port, CLIENT_SEQUENCE, 64240).syn().write(&mut bytes, &[])?;
            (IpNumber::TCP, Some(16), Some(0), SOURCE_PORTS)
        }
        Segment::Fin => {
            let packet = packet.tcp(0, port, CLIENT_SEQUENCE + 1, 64240);
            packet.fin().ack(SERVER_SEQUENCE + 1).write(&mut bytes, &[])?;
            (IpNumber::TCP, Some(16), Some(0), SOURCE_PORTS)
        }
        Segment::Ack => {
            packet.tcp(0, port, 1, 64240).ack(1).write(&mut bytes, &[])?;
            (IpNumber::TCP, Some(16), Some(0), SOURCE_PORTS)
        }
        Segment::Udp => {
            packet.udp(0, port).write(&mut bytes, PAYLOAD)?;
            (IpNumber::UDP, Some(6), Some(0), SOURCE_PORTS)
        }
        Segment::Answer(from) => {
            packet.udp(from, 0).write(&mut bytes, PAYLOAD)?;
            (IpNumber::UDP, Some(6), Some(2), answered_ports(port))
        }
        Segment::Echo => match route.family {
            Family::Ipv4 => {
                packet.icmpv4_echo_request(0, 1).write(&mut bytes, PAYLOAD)?;
                (IpNumber::ICMP, Some(2), Some(4), (0, u16::MAX))
            }
            Family::Ipv6 => {
                packet.icmpv6_echo_request(0, 1).write(&mut bytes, PAYLOAD)?;
                (IpNumber::IPV6_ICMP, Some(2), Some(4), (0, u16::MAX))
            }
        },
        Segment::Sctp => {
            packet.write(&mut bytes, IpNumber::SCTP, &sctp_init(port))?;
            (IpNumber::SCTP, None, None, (0, 0))
        }
    };
    let mut transport_at = NETWORK_AT + network_length(route.family);
    if segment == Segment::SynBehindExtensions {
        transport_at += insert_extensions(&mut bytes, transport_at, protocol)?;
    }
    let at = |offset: usize| transport_at + offset;
    Ok(Whole {
        bytes,
        protocol,
        transport_at,
        checksum_at: checksum.map(at),
        drawn_at: drawn_at.map(at),
        drawn,
    })
}

const SOURCE_PORTS: (u16, u16) = (FIRST_PORT, u16::MAX);

/// The ports that imitated answers go at: as many from `first` on as the router exposes.
fn answered_ports(first: u16) -> (u16, u16) {
    (first, first.saturating_add(EXPOSED_PORTS.1 - EXPOSED_PORTS.0))
}

/// Cuts a whole IPv4 frame after [`TINY`] bytes of its transport, what is filled in left as it is;
/// with the part come its offset in the transport.
pub(super) fn fragment(whole: &[u8], part: Part) -> Result<(Vec<u8>, usize)> {
    let (mut header, transport) = Ipv4Header::from_slice(&whole[NETWORK_AT..])?;
    let (head, rest) = transport.split_at_checked(TINY).context("nothing to cut")?;
    let (data, offset) = match part {
        Part::Head => (head, 0),
        Part::Rest => (rest, TINY),
    };
    // The source and the protocol tell packets apart, so one identification does for all.
    header.identification = 1;
    header.dont_fragment = false;
    header.more_fragments = part == Part::Head;
    header.fragment_offset = IpFragOffset::try_new(u16::try_from(offset / 8)?)?;
    header.set_payload_len(data.len())?;
    let mut bytes = whole[..NETWORK_AT].to_vec();
    header.write_raw(&mut bytes)?;
    bytes.extend_from_slice(data);
    Ok((bytes, offset))
}

fn ip(ends: Ends, route: Route) -> Result<PacketBuilderStep<IpHeaders>> {
    let link = PacketBuilder::ethernet2(route.link.0, route.link.1);
    match (ends.from, ends.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ok(link.ipv4(from.octets(), to.octets(), 64)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Ok(link.ipv6(from.octets(), to.octets(), 64)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("a flood has one family")
        }
    }
}

fn network_length(family: Family) -> usize {
    match family {
        Family::Ipv4 => 20,
        Family::Ipv6 => 40,
    }
}

/// Puts extension headers before the transport and tells how many bytes they take.
fn insert_extensions(frame: &mut Vec<u8>, at: usize, transport: IpNumber) -> Result<usize> {
    // A PadN of 4 bytes fills a header of destination options (RFC 8200, 4.2 and 4.6).
    let header = |next: IpNumber| [next.0, 0, 1, 4, 0, 0, 0, 0];
    let mut headers = [IpNumber::IPV6_DESTINATION_OPTIONS; EXTENSION_HEADERS].map(header);
    headers[EXTENSION_HEADERS - 1] = header(transport);
    let inserted = headers.concat();

    let ip = frame.get_mut(NETWORK_AT..at).context("a frame is too short")?;
    ip[6] = IpNumber::IPV6_DESTINATION_OPTIONS.0;
    let payload = u16::from_be_bytes([ip[4], ip[5]]) + u16::try_from(inserted.len())?;
    ip[4..6].copy_from_slice(&payload.to_be_bytes());
    frame.splice(at..at, inserted.iter().copied());
    Ok(inserted.len())
}

/// An SCTP packet with an INIT chunk (RFC 9260, 3.1 and 3.3.2). Its checksum, a CRC-32C, covers no
/// address, so that one packet does for all sources.
fn sctp_init(port: u16) -> [u8; 32] {
    let mut packet = [0; 32];
    let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &FIRST_PORT.to_be_bytes());
    put(2, &port.to_be_bytes());
    // The verification tag of a packet with INIT is 0. Chunk: type 1, no flags, 20 bytes.
    put(12, &[1, 0, 0, 20]);
    let (initiate_tag, window, streams, first_number) = (1_u32, 65_536_u32, 1_u16, 1_u32);
    put(16, &initiate_tag.to_be_bytes());
    put(20, &window.to_be_bytes());
    put(24, &streams.to_be_bytes());
    put(26, &streams.to_be_bytes());
    put(28, &first_number.to_be_bytes());
    let checksum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&packet);
    // The least significant byte comes first (RFC 9260, appendix A).
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}
