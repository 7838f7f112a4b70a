//! What is true of a frame, read the naive way and by none of the product's code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctguard_tests::conntrack::Tuple;

use crate::frame::{
    AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, GRE, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, SCTP,
    TCP, UDP, UDPLITE, checksum,
};

/// A frame's headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) destination: [u8; 6],
    /// Identifiers of its VLAN tags.
    pub(crate) tags: Vec<u16>,
    pub(crate) ethertype: u16,
    pub(crate) ip: Option<Ip>,
}

/// An IP packet whose fixed header is there.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) hops: u8,
    pub(crate) protocol: u8,
    /// The version is that of the Ethernet type, the lengths fit the frame, the header checksum is
    /// right.
    pub(crate) is_sound: bool,
    pub(crate) options: Vec<u8>,
    /// Extension headers, and where each begins behind the fixed header.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// The chain of extension headers ends within the packet.
    pub(crate) chain_ends: bool,
    /// It is a fragment of more than itself.
    pub(crate) is_fragment: bool,
    pub(crate) payload: Vec<u8>,
}

/// Reads a frame.
pub(crate) fn dissect(bytes: &[u8]) -> Frame {
    let mut frame = Frame::default();
    let Some((head, mut rest)) = bytes.split_at_checked(14) else { return frame };
    frame.destination.copy_from_slice(&head[..6]);
    frame.ethertype = u16::from_be_bytes([head[12], head[13]]);
    while matches!(frame.ethertype, 0x8100 | 0x88a8) {
        let Some((tag, behind)) = rest.split_at_checked(4) else { return frame };
        frame.tags.push(u16::from_be_bytes([tag[0], tag[1]]) & 0xfff);
        frame.ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        rest = behind;
    }
    frame.ip = match frame.ethertype {
        0x0800 => four(rest),
        0x86dd => six(rest),
        _ => None,
    };
    frame
}

fn four(bytes: &[u8]) -> Option<Ip> {
    let header = bytes.get(..20)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let field = u16::from_be_bytes([header[6], header[7]]);
    let is_sound = header[0] >> 4 == 4
        && header_bytes >= 20
        && total >= header_bytes
        && bytes.len() >= total
        && checksum(&bytes[..header_bytes]) == 0;
    Some(Ip {
        from: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        to: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        hops: header[8],
        protocol: header[9],
        is_sound,
        options: bytes.get(20..header_bytes).unwrap_or_default().to_vec(),
        extensions: Vec::new(),
        chain_ends: true,
        is_fragment: field & 0x3fff != 0,
        payload: bytes.get(header_bytes..total).unwrap_or_default().to_vec(),
    })
}

fn six(bytes: &[u8]) -> Option<Ip> {
    let header = bytes.get(..40)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(Ipv6Addr::from(octets))
    };
    let mut ip = Ip {
        from: address(8),
        to: address(24),
        hops: header[7],
        protocol: header[6],
        is_sound: header[0] >> 4 == 6 && bytes.len() >= 40 + length,
        options: Vec::new(),
        extensions: Vec::new(),
        chain_ends: true,
        is_fragment: false,
        payload: bytes.get(40..40 + length).unwrap_or_default().to_vec(),
    };
    let mut is_later = false;
    while is_extension(ip.protocol) && !is_later {
        let kind = ip.protocol;
        let Some(bytes) = extension_bytes(kind, &ip.payload).filter(|n| *n <= ip.payload.len())
        else {
            ip.chain_ends = false;
            break;
        };
        let rest = ip.payload.split_off(bytes);
        let header = std::mem::replace(&mut ip.payload, rest);
        ip.protocol = header[0];
        if kind == FRAGMENT {
            let field = u16::from_be_bytes([header[2], header[3]]);
            is_later = field >> 3 != 0;
            ip.is_fragment |= field & !6 != 0;
        }
        ip.extensions.push((kind, header));
    }
    Some(ip)
}

fn extension_bytes(kind: u8, header: &[u8]) -> Option<usize> {
    let length = usize::from(*header.get(1)?);
    Some(match kind {
        FRAGMENT => 8,
        AUTHENTICATION => (length + 2) * 4,
        _ => (length + 1) * 8,
    })
}

/// The packet's tuple, as conntrack has it.
pub(crate) fn tuple_of(ip: &Ip) -> Tuple {
    let word = |at: usize| {
        let bytes = ip.payload.get(at..at + 2).unwrap_or(&[0, 0]);
        u16::from_be_bytes([bytes[0], bytes[1]])
    };
    let (from_port, to_port) = match ip.protocol {
        TCP | UDP | UDPLITE | SCTP => (word(0), word(2)),
        // Of the other family too (`nf_ct_get_tuple`).
        ICMP | ICMPV6 => (word(4), word(0)),
        GRE if word(0) & 7 == 1 => (0, word(6)),
        _ => (0, 0),
    };
    Tuple { from: ip.from, to: ip.to, protocol: ip.protocol, from_port, to_port }
}

pub(crate) const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}
