//! IPv6 (RFC 8200) with its extension headers.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Fragment, Header, Malformed,
    address::Ipv6,
    reader::{Be16, Be32, Reader},
};

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Ipv6Header {
    version_class_label: Be32,
    payload_length: Be16,
    next_header_hop_limit: Be16,
    source: [Be32; 4],
    destination: [Be32; 4],
}

const _: () = assert!(size_of::<Ipv6Header>() == 40);

/// The first eight bytes of any extension header; the fragment header is no longer than that.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct ExtensionHeader {
    next_header_and_length: Be16,
    /// In a fragment header: offset (13 bits), reserved (2), more fragments (1).
    offset_and_more: Be16,
    rest: [Be16; 2],
}

const EXTENSION_WORDS: u16 = 2;
/// Words of extension headers that are stepped over. A longer chain, which needs eight headers of
/// nearly 2,048 bytes, is not read.
const MOST_WORDS: u32 = 0xfff;
const _: () = assert!(size_of::<ExtensionHeader>() == EXTENSION_WORDS as usize * 4);

/// Extension headers that are read; a packet with more is charged as class other.
pub(super) const MOST_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Parses the header and leaves `packet` behind its extension headers, which are those of
/// `ipv6_skip_exthdr` (`net/ipv6/exthdrs_core.c`).
#[inline(always)]
pub(super) fn parse(packet: &mut Reader<'_>) -> Result<Header<Ipv6>, Malformed> {
    let header: &Ipv6Header = packet.take().ok_or(Malformed::Ipv6)?;
    if header.version_class_label.get() >> 28 != 6 {
        return Err(Malformed::Ipv6);
    }
    let [next_header, _] = header.next_header_hop_limit.get().to_be_bytes();
    let mut parsed = Header {
        source: Ipv6(header.source.map(Be32::get)),
        destination: Ipv6(header.destination.map(Be32::get)),
        protocol: next_header,
        payload_bytes: match header.payload_length.get() {
            // A jumbogram has its length in an option (RFC 2675).
            0 => u16::MAX,
            length => length,
        },
        fragment: Fragment::Whole,
        unread_extensions: false,
    };
    let mut chain = packet.clone();
    let mut words = 0;
    let mut fragment_seen = false;
    for _ in 0..MOST_EXTENSIONS {
        if !is_extension(parsed.protocol) || parsed.fragment.is_later() {
            break;
        }
        match step_over(&mut chain, &mut parsed, &mut fragment_seen) {
            Some(more) => words += more,
            None => break,
        }
    }
    if parsed.fragment.is_later() {
        return Ok(parsed);
    }
    // Also if the chain ends outside the packet: `ipv6_skip_exthdr` trusts the last header's
    // length, and conntrack tracks what it finds there.
    let payload_bytes = parsed.payload_bytes.checked_sub(words * 4);
    parsed.payload_bytes = payload_bytes.unwrap_or(0);
    parsed.unread_extensions = is_extension(parsed.protocol)
        || payload_bytes.is_none()
        || u32::from(words) > MOST_WORDS
        || packet.skip_read_words::<MOST_WORDS>(words).is_none();
    Ok(parsed)
}

/// Steps over one extension header and returns its length in 32-bit words. `None` if the frame's
/// first buffer ends, or a fragment header follows another.
#[inline(always)]
fn step_over(
    packet: &mut Reader<'_>,
    parsed: &mut Header<Ipv6>,
    fragment_seen: &mut bool,
) -> Option<u16> {
    let extension: &ExtensionHeader = packet.take()?;
    let [next_header, length] = extension.next_header_and_length.get().to_be_bytes();
    let length = u16::from(length);
    let more_words = match parsed.protocol {
        FRAGMENT if *fragment_seen => return None,
        FRAGMENT => {
            *fragment_seen = true;
            let offset_and_more = extension.offset_and_more.get();
            parsed.fragment = Fragment::at(offset_and_more >> 3, offset_and_more & 1 != 0);
            0
        }
        // In units of four bytes less two (RFC 4302, section 2.2), the others in units of eight
        // less one.
        AUTHENTICATION => length,
        _ => length * 2,
    };
    packet.skip_words(more_words)?;
    parsed.protocol = next_header;
    Some(EXTENSION_WORDS + more_words)
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}
