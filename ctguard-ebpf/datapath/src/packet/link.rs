//! Ethernet, up to two VLAN tags (IEEE 802.1Q, 802.1ad), `PPPoE` session (RFC 2516).

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Malformed,
    reader::{Be16, Reader},
};

/// An Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub struct EthernetHeader {
    destination: [Be16; 3],
    source: [Be16; 3],
    ethertype: Be16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct VlanTag {
    control: Be16,
    ethertype: Be16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct PppoeHeader {
    version_type_code: Be16,
    session: Be16,
    length: Be16,
    ppp_protocol: Be16,
}

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88a8;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
const PPP_MULTILINK: u16 = 0x003d;
const PPP_COMPRESSED: u16 = 0x00fd;
const ETHERNET_BYTES: u32 = 14;
const MOST_TAGS: usize = 2;
const VLAN_TAG_WORDS: u16 = 1;
const PPPOE_WORDS: u16 = 2;
/// At least the words of two tags and a PPPoE header.
const MOST_WORDS: u32 = 7;
const _: () = assert!(size_of::<EthernetHeader>() == ETHERNET_BYTES as usize);
const _: () = assert!(size_of::<VlanTag>() == 4 && size_of::<PppoeHeader>() == 8);

/// The last four bytes before a network header: the end of a PPPoE header or of another one.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(crate) struct SessionEnd {
    length: Be16,
    ppp_protocol: Be16,
}

/// The length field of PPPoE counts the PPP protocol too (RFC 2516, section 4).
const PPP_PROTOCOL_BYTES: u16 = 2;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Another protocol, which conntrack does not see.
    NotIp,
    /// More tags than are read here, or PPP that is compressed or multilink: the stack may still
    /// find IP in it.
    Unparsed,
}

impl EthernetHeader {
    /// Destination MAC address as a big-endian number.
    #[inline(always)]
    pub(crate) fn destination(&self) -> u64 {
        let [high, middle, low] = self.destination;
        u64::from(high.get()) << 32 | u64::from(middle.get()) << 16 | u64::from(low.get())
    }

    /// Whether the frame is for one station and not for a group (IEEE 802.3, 3.2.3).
    #[inline(always)]
    pub(crate) fn is_unicast(&self) -> bool {
        self.destination() & 0x0100_0000_0000 == 0
    }

    /// The header of a reply.
    #[inline(always)]
    pub(crate) const fn reversed(self) -> Self {
        Self { destination: self.source, source: self.destination, ..self }
    }
}

impl SessionEnd {
    #[expect(clippy::cast_possible_truncation, reason = "four")]
    pub(crate) const BYTES: u32 = size_of::<Self>() as u32;

    /// The same before an IP packet of another length. `None` if this is not the end of a PPPoE
    /// header: no Ethertype is as small as a PPP protocol.
    #[inline(always)]
    pub(crate) fn before(self, packet_bytes: u16) -> Option<Self> {
        let is_session = matches!(self.ppp_protocol.get(), PPP_IPV4 | PPP_IPV6);
        is_session.then_some(Self { length: Be16::new(packet_bytes + PPP_PROTOCOL_BYTES), ..self })
    }
}

/// The link headers of a frame.
#[derive(Clone, Copy)]
pub struct Frame<'p> {
    /// The outermost header.
    pub ethernet: &'p EthernetHeader,
    /// What follows the innermost.
    pub network: Network,
}

/// Parses the link headers and leaves `packet` at the network header.
#[inline(always)]
pub fn parse<'p>(packet: &mut Reader<'p>) -> Result<Frame<'p>, Malformed> {
    let ethernet: &'p EthernetHeader = packet.take().ok_or(Malformed::Link)?;

    let mut inner = packet.clone();
    let (ethertype, mut words) = read_tags(&mut inner, ethernet).ok_or(Malformed::Link)?;
    let network = match ethertype {
        ETHERTYPE_IPV4 => Network::Ipv4,
        ETHERTYPE_IPV6 => Network::Ipv6,
        ETHERTYPE_PPPOE_SESSION => {
            let pppoe: &PppoeHeader = inner.take().ok_or(Malformed::Link)?;
            words += PPPOE_WORDS;
            match pppoe.ppp_protocol.get() {
                PPP_IPV4 => Network::Ipv4,
                PPP_IPV6 => Network::Ipv6,
                PPP_MULTILINK | PPP_COMPRESSED => Network::Unparsed,
                // An odd first byte is a compressed protocol field (RFC 1661, section 6.5), which
                // `ppp_input` accepts whether negotiated or not.
                protocol if protocol & 0x0100 != 0 => Network::Unparsed,
                _ => Network::NotIp,
            }
        }
        _ if is_tag(ethertype) => Network::Unparsed,
        _ => Network::NotIp,
    };
    packet.skip_read_words::<MOST_WORDS>(words).ok_or(Malformed::Link)?;
    Ok(Frame { ethernet, network })
}

/// Steps over the link headers and returns their length in bytes.
///
/// Few packets need it. If [`parse`] returned it, every packet would carry it along.
#[inline(always)]
pub(crate) fn skip(packet: &mut Reader<'_>) -> Option<u32> {
    let ethernet: &EthernetHeader = packet.take()?;
    let (ethertype, mut words) = read_tags(&mut packet.clone(), ethernet)?;
    if ethertype == ETHERTYPE_PPPOE_SESSION {
        words += PPPOE_WORDS;
    }
    Some(ETHERNET_BYTES + packet.skip_read_words::<MOST_WORDS>(words)?)
}

/// Steps over the tags behind an Ethernet header; returns the Ethertype behind them and their
/// length in 32-bit words.
#[inline(always)]
fn read_tags(packet: &mut Reader<'_>, ethernet: &EthernetHeader) -> Option<(u16, u16)> {
    let mut words = 0;
    let mut ethertype = ethernet.ethertype.get();
    for _ in 0..MOST_TAGS {
        if !is_tag(ethertype) {
            break;
        }
        let tag: &VlanTag = packet.take()?;
        ethertype = tag.ethertype.get();
        words += VLAN_TAG_WORDS;
    }
    Some((ethertype, words))
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD)
}
