//! Frames by their bytes, where a library would refuse to build them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ctguard_tests::frames::{self, flags};

pub(crate) const REMOTE: &str = "192.0.2.1";
pub(crate) const LOCAL: &str = "198.51.100.1";
pub(crate) const REMOTE6: &str = "2001:db8:0:1::1";
pub(crate) const LOCAL6: &str = "2001:db8:ffff::1";

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
const FRAGMENT_HEADER: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A TCP segment from one port to port 80.
pub(crate) fn tcp(from: &str, to: &str, port: u16, flags: u8) -> Vec<u8> {
    frames::tcp((ip(from), port), (ip(to), 80), flags).expect("one family")
}

/// A TCP segment the other way.
pub(crate) fn tcp_back(from: &str, to: &str, port: u16, flags: u8) -> Vec<u8> {
    frames::tcp((ip(from), 80), (ip(to), port), flags).expect("one family")
}

/// A SYN from [`REMOTE`].
pub(crate) fn syn(port: u16) -> Vec<u8> {
    tcp(REMOTE, LOCAL, port, flags::SYN)
}

/// A UDP datagram from one port to port 9.
pub(crate) fn udp(from: &str, to: &str, port: u16) -> Vec<u8> {
    udp_to(from, to, port, 9)
}

pub(crate) fn udp_to(from: &str, to: &str, port: u16, to_port: u16) -> Vec<u8> {
    frames::udp((ip(from), port), (ip(to), to_port)).expect("one family")
}

/// An ICMP or ICMPv6 message of a type, with an identifier.
pub(crate) fn icmp(from: &str, to: &str, kind: u8, identifier: u8) -> Vec<u8> {
    let message = [kind, 0, 0, 0, 0, identifier, 0, 1];
    match ip(from) {
        IpAddr::V4(_) => ipv4(from, to, ICMP, 0, &message),
        IpAddr::V6(_) => ipv6(from, to, ICMPV6, &message),
    }
}

/// An IPv4 packet; `fragment` is the field of flags and offset.
pub(crate) fn ipv4(from: &str, to: &str, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short packet");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(ipv4_bytes(from));
    packet.extend(ipv4_bytes(to));
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

/// An IPv6 packet.
pub(crate) fn ipv6(from: &str, to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short packet");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(ipv6_bytes(from));
    packet.extend(ipv6_bytes(to));
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// An IPv6 packet from [`REMOTE6`] with so many headers of destination options before its own.
pub(crate) fn chained(headers: usize, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut chain = Vec::new();
    for left in (0..headers).rev() {
        chain.extend([if left == 0 { protocol } else { DESTINATION_OPTIONS }, 0, 1, 4, 0, 0, 0, 0]);
    }
    chain.extend(payload);
    ipv6(REMOTE6, LOCAL6, if headers == 0 { protocol } else { DESTINATION_OPTIONS }, &chain)
}

/// An IPv6 fragment from [`REMOTE6`]; `offset` in units of eight bytes.
pub(crate) fn fragment6(protocol: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![protocol, 0];
    packet.extend((offset << 3 | u16::from(more)).to_be_bytes());
    packet.extend([0, 0, 0, 7]);
    packet.extend(payload);
    ipv6(REMOTE6, LOCAL6, FRAGMENT_HEADER, &packet)
}

/// A TCP header of a SYN from `port`.
pub(crate) fn syn_header(port: u16) -> Vec<u8> {
    transport_of(&syn(port))
}

/// What follows the Ethernet and IPv4 headers (without options) of a frame.
pub(crate) fn transport_of(frame: &[u8]) -> Vec<u8> {
    frame[34..].to_vec()
}

/// The frame behind VLAN tags of these types, the outermost first.
pub(crate) fn tagged(frame: &[u8], types: &[u16]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for (vlan, kind) in (1_u16..).zip(types) {
        tagged.extend(kind.to_be_bytes());
        tagged.extend(vlan.to_be_bytes());
    }
    tagged.extend(&frame[12..]);
    tagged
}

/// The frame's packet in a PPPoE session.
pub(crate) fn in_pppoe(frame: &[u8]) -> Vec<u8> {
    let protocol: u16 = if frame[12..14] == [0x08, 0] { 0x0021 } else { 0x0057 };
    pppoe(protocol, &frame[14..])
}

/// A frame of a PPPoE session.
pub(crate) fn pppoe(protocol: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(2 + payload.len()).expect("a short packet");
    let mut session = vec![0x11, 0, 0, 1];
    session.extend(length.to_be_bytes());
    session.extend(protocol.to_be_bytes());
    session.extend(payload);
    ethernet(0x8864, &session)
}

/// A frame to `02:02:02:02:02:02` that is at least as long as a test run wants.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [[2; 6], [4; 6]].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn ipv4_bytes(text: &str) -> [u8; 4] {
    text.parse::<Ipv4Addr>().expect("an IPv4 address").octets()
}

pub(crate) fn ipv6_bytes(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().expect("an IPv6 address").octets()
}
