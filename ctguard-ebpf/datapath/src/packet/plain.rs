//! The headers of nearly every packet: Ethernet, IPv4 without options, TCP or UDP. They are read at
//! fixed offsets; any other packet is left to the parser of all headers.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Ipv4, Packet, TcpFlags, Transport,
    link::ETHERTYPE_IPV4,
    protocol,
    reader::{Be16, Be32, Reader, word},
};

/// Up to the first eight bytes of the transport header.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Headers {
    stations: [Be16; 6],
    ethertype: Be16,
    version_length_service: Be16,
    total_length: Be16,
    identification: Be16,
    flags_and_offset: Be16,
    time_to_live_protocol: Be16,
    checksum: Be16,
    source: Be32,
    destination: Be32,
    ports: Be32,
    /// UDP: length and checksum. TCP: sequence number.
    length_or_sequence: [Be16; 2],
}

/// The rest of a TCP header.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct TcpRest {
    acknowledgment: Be32,
    length_and_flags: Be16,
    window: Be16,
    checksum: Be16,
    urgent: Be16,
}

const _: () = assert!(size_of::<Headers>() == 14 + 20 + 8 && size_of::<TcpRest>() == 12);

const VERSION_AND_LENGTH: u16 = 0x45;
const IPV4_BYTES: u16 = 20;
const TCP_BYTES: u16 = 20;
const UDP_BYTES: u16 = 8;
/// More fragments, or an offset.
const FRAGMENT: u16 = 0x3fff;

/// Parses a packet that is whole and plain; `None` if it is another.
#[inline(always)]
pub(crate) fn parse_plain(mut frame: Reader<'_>) -> Option<Packet<Ipv4>> {
    let headers: &Headers = frame.take()?;
    if headers.ethertype.get() != ETHERTYPE_IPV4
        || headers.version_length_service.get() >> 8 != VERSION_AND_LENGTH
        || headers.flags_and_offset.get() & FRAGMENT != 0
    {
        return None;
    }
    let total_length = headers.total_length.get();
    let ports = word::<{ offset_of!(Headers, ports) }, _>(headers);
    let [_, protocol] = headers.time_to_live_protocol.get().to_be_bytes();
    let transport = match protocol {
        protocol::TCP => {
            let rest: &TcpRest = frame.take()?;
            let [length, flags] = rest.length_and_flags.get().to_be_bytes();
            let header_bytes = u16::from(length >> 4) * 4;
            if header_bytes < TCP_BYTES || total_length < IPV4_BYTES + header_bytes {
                return None;
            }
            Transport::Tcp {
                ports,
                flags: TcpFlags(u32::from(flags)),
                sequence: word::<{ offset_of!(Headers, length_or_sequence) }, _>(headers),
                carries_data: total_length > IPV4_BYTES + header_bytes,
            }
        }
        protocol::UDP => {
            let [length, _] = headers.length_or_sequence;
            if length.get() < UDP_BYTES || total_length < IPV4_BYTES + UDP_BYTES {
                return None;
            }
            Transport::Udp { ports }
        }
        _ => return None,
    };
    Some(Packet {
        source: Ipv4(word::<{ offset_of!(Headers, source) }, _>(headers)),
        destination: Ipv4(word::<{ offset_of!(Headers, destination) }, _>(headers)),
        protocol,
        transport,
    })
}
