//! Ethernet, up to two VLAN tags (IEEE 802.1Q, 802.1ad), `PPPoE` session (RFC 2516).

use super::{
    Malformed,
    reader::{Be16, Reader, WireHeader},
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct EthernetHeader {
    destination: [Be16; 3],
    source: [Be16; 3],
    ethertype: Be16,
}

// SAFETY: `repr(C)` of `u16`s only.
unsafe impl WireHeader for EthernetHeader {}

#[repr(C)]
#[derive(Clone, Copy)]
struct VlanTag {
    control: Be16,
    ethertype: Be16,
}

// SAFETY: `repr(C)` of `u16`s only.
unsafe impl WireHeader for VlanTag {}

#[repr(C)]
#[derive(Clone, Copy)]
struct PppoeHeader {
    version_type_code: Be16,
    session: Be16,
    length: Be16,
    ppp_protocol: Be16,
}

// SAFETY: `repr(C)` of `u16`s only.
unsafe impl WireHeader for PppoeHeader {}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88a8;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
const PPP_MULTILINK: u16 = 0x003d;
const PPP_COMPRESSED: u16 = 0x00fd;
const MOST_TAGS: usize = 2;
const VLAN_TAG_WORDS: u16 = 1;
const PPPOE_WORDS: u16 = 2;
/// Not less than two tags and a PPPoE header have.
const MOST_WORDS: u32 = 7;
const _: () = assert!(size_of::<VlanTag>() == 4 && size_of::<PppoeHeader>() == 8);

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Something that conntrack does not see.
    NotIp,
    /// More tags than are read here, or PPP that is compressed or bundled: the stack may still find
    /// IP in it.
    Untold,
}

impl EthernetHeader {
    /// Destination MAC address, its six bytes read as a big-endian number.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> u64 {
        let [high, middle, low] = self.destination;
        u64::from(high.get()) << 32 | u64::from(middle.get()) << 16 | u64::from(low.get())
    }

    /// Whether the frame is for one station and not for a group (IEEE 802.3, 3.2.3).
    #[inline(always)]
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        self.destination() & 0x0100_0000_0000 == 0
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
///
/// # Errors
/// [`Malformed::Link`] when the frame ends inside them.
#[inline(always)]
pub(super) fn parse<'p>(packet: &mut Reader<'p>) -> Result<Frame<'p>, Malformed> {
    let ethernet: &'p EthernetHeader = packet.take().ok_or(Malformed::Link)?;

    let mut inner = packet.clone();
    let mut words = 0;
    let mut ethertype = ethernet.ethertype.get();
    for _ in 0..MOST_TAGS {
        if !is_tag(ethertype) {
            break;
        }
        let tag: &VlanTag = inner.take().ok_or(Malformed::Link)?;
        ethertype = tag.ethertype.get();
        words += VLAN_TAG_WORDS;
    }

    let network = match ethertype {
        ETHERTYPE_IPV4 => Network::Ipv4,
        ETHERTYPE_IPV6 => Network::Ipv6,
        ETHERTYPE_PPPOE_SESSION => {
            let pppoe: &PppoeHeader = inner.take().ok_or(Malformed::Link)?;
            words += PPPOE_WORDS;
            match pppoe.ppp_protocol.get() {
                PPP_IPV4 => Network::Ipv4,
                PPP_IPV6 => Network::Ipv6,
                PPP_MULTILINK | PPP_COMPRESSED => Network::Untold,
                // An odd first byte is the whole number: the field is compressed (RFC 1661,
                // section 6.5), which `ppp_input` takes whether negotiated or not.
                protocol if protocol & 0x0100 != 0 => Network::Untold,
                _ => Network::NotIp,
            }
        }
        _ if is_tag(ethertype) => Network::Untold,
        _ => Network::NotIp,
    };
    packet.skip_read_words::<MOST_WORDS>(words).ok_or(Malformed::Link)?;
    Ok(Frame { ethernet, network })
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD)
}
