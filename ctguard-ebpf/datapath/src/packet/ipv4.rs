//! IPv4 (RFC 791): addresses, protocol and fragment offset.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Fragment, Header, Malformed,
    address::Ipv4,
    reader::{Be16, Be32, Reader, word},
};

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Ipv4Header {
    version_length_service: Be16,
    total_length: Be16,
    identification: Be16,
    flags_and_offset: Be16,
    time_to_live_protocol: Be16,
    checksum: Be16,
    source: Be32,
    destination: Be32,
}

const HEADER_WORDS: u16 = 5;
const _: () = assert!(size_of::<Ipv4Header>() == HEADER_WORDS as usize * 4);

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Parses the header and leaves `packet` behind its options. Fails where `ip_rcv` discards the
/// packet: another version, an impossible length, or a frame that ends too early.
#[inline(always)]
pub(super) fn parse(packet: &mut Reader<'_>) -> Result<Header<Ipv4>, Malformed> {
    let header: &Ipv4Header = packet.take().ok_or(Malformed::Ipv4)?;
    let version_and_length = header.version_length_service.get() >> 8;
    if version_and_length >> 4 != 4 {
        return Err(Malformed::Ipv4);
    }
    let words = version_and_length & 0x0f;
    if words < HEADER_WORDS {
        return Err(Malformed::Ipv4);
    }
    packet.skip_words(words - HEADER_WORDS).ok_or(Malformed::Ipv4)?;
    let total_length = header.total_length.get();
    if total_length < words * 4 {
        return Err(Malformed::Ipv4);
    }

    let [_, protocol] = header.time_to_live_protocol.get().to_be_bytes();
    let flags_and_offset = header.flags_and_offset.get();
    let fragment = if flags_and_offset & (MORE_FRAGMENTS | OFFSET) == 0 {
        Fragment::Whole
    } else {
        Fragment::at(flags_and_offset & OFFSET, flags_and_offset & MORE_FRAGMENTS != 0)
    };
    Ok(Header {
        source: Ipv4(word::<{ offset_of!(Ipv4Header, source) }, _>(header)),
        destination: Ipv4(word::<{ offset_of!(Ipv4Header, destination) }, _>(header)),
        protocol,
        payload_bytes: total_length - words * 4,
        fragment,
        unread_extensions: false,
    })
}
