//! What a tuple's packet carries: a transport header of every kind, its checksum right.

use std::net::IpAddr;

use ctguard_tests::{conntrack::Tuple, random::Random};

use crate::frame::{
    ACK, AUTHENTICATION, DCCP, FIN, GRE, ICMP, ICMPV6, IPIP, PSH, Packet, RST, SCTP, SYN, TCP, UDP,
    UDPLITE, URG, set_transport_checksum, transport_checksum,
};

/// What a TCP segment's sequence number is: the outside's, then the inside's; a SYN's is one less.
const SEQUENCES: [u32; 2] = [1000, 2000];

/// ICMP types that conntrack knows a request or an answer by, and others.
const TYPES: [u8; 14] = [0, 3, 5, 8, 8, 8, 9, 10, 13, 14, 15, 17, 18, 40];
const TYPES6: [u8; 12] = [1, 128, 128, 128, 129, 130, 135, 139, 140, 143, 144, 200];

/// The transport header and data of `tuple`'s packet, and what to call it.
pub(crate) fn payload(
    tuple: &Tuple,
    from_outside: bool,
    random: &mut Random,
) -> (&'static str, Vec<u8>) {
    let ports = [tuple.from_port.to_be_bytes(), tuple.to_port.to_be_bytes()].concat();
    let (kind, mut payload) = match tuple.protocol {
        TCP => {
            let (kind, flags) = flags(random);
            (kind, tcp(ports, flags, from_outside, random))
        }
        UDP => ("udp", udp(ports, random)),
        UDPLITE => ("udp-lite", udp_lite(ports, random)),
        ICMP | ICMPV6 => ("icmp", icmp(tuple, random)),
        SCTP => ("sctp", sctp(ports, random)),
        DCCP => ("dccp", [ports.as_slice(), &[3, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]].concat()),
        GRE => gre(tuple.to_port, random),
        IPIP => ("ipip", inner(tuple)),
        AUTHENTICATION => {
            ("ah", vec![UDP, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        _ => ("generic", random.word().to_be_bytes().repeat(3)),
    };
    set_transport_checksum(tuple.from, tuple.to, tuple.protocol, &mut payload);
    if tuple.protocol == UDPLITE && random.below(2) == 0 {
        // What conntrack takes for right: the pseudo-header names UDP (`udplite_error`).
        let checksum = transport_checksum(tuple.from, tuple.to, UDP, &without_checksum(&payload));
        payload[6..8].copy_from_slice(&checksum.to_be_bytes());
        return ("udp-lite as UDP", payload);
    }
    if tuple.protocol == UDP && tuple.from.is_ipv4() && random.once_in(16) {
        payload[6..8].fill(0);
        return ("udp without checksum", payload);
    }
    (kind, payload)
}

fn without_checksum(header: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    header[6..8].fill(0);
    header
}

/// An ICMP message's type and code as a tuple has them, drawn.
pub(crate) fn icmp_type(six: bool, random: &mut Random) -> u16 {
    let kind = if six { random.one_of(&TYPES6) } else { random.one_of(&TYPES) };
    let code = if random.once_in(8) { random.byte() & 3 } else { 0 };
    u16::from_be_bytes([kind, code])
}

/// An ICMP error about a packet of `tuple`.
pub(crate) fn error_about(from: IpAddr, to: IpAddr, tuple: &Tuple, random: &mut Random) -> Packet {
    let ports = [tuple.from_port.to_be_bytes(), tuple.to_port.to_be_bytes()].concat();
    let start = match tuple.protocol {
        ICMP | ICMPV6 => {
            let [kind, code] = tuple.to_port.to_be_bytes();
            let [high, low] = tuple.from_port.to_be_bytes();
            vec![kind, code, 0, 0, high, low, 0, 1]
        }
        _ => [ports.as_slice(), &[0, 0, 0, 8, 0, 0, 0, 0]].concat(),
    };
    let embedded = Packet::new(tuple.from, tuple.to, tuple.protocol, start);
    let link = crate::network::TO_WAN;
    let embedded = embedded.frame(link).split_off(crate::frame::NETWORK_AT);
    let (protocol, kind) = if from.is_ipv4() {
        (ICMP, random.one_of(&[3, 4, 5, 11, 12]))
    } else {
        (ICMPV6, random.one_of(&[1, 2, 3, 4]))
    };
    let mut message = vec![kind, random.byte() & 3, 0, 0, 0, 0, 5, 0];
    message.extend(embedded);
    if random.once_in(6) {
        message.truncate(8 + random.index(20));
    }
    set_transport_checksum(from, to, protocol, &mut message);
    Packet::new(from, to, protocol, message)
}

/// A SYN's, an ACK's, every other combination's control bits.
fn flags(random: &mut Random) -> (&'static str, u8) {
    match random.below(20) {
        0..=5 => ("syn", SYN),
        6..=9 => ("ack", ACK),
        10..=11 => ("data", PSH | ACK),
        12..=13 => ("syn-ack", SYN | ACK),
        14 => ("fin", FIN | ACK),
        15 => ("rst", RST),
        16 => ("rst", RST | ACK),
        17 => ("odd flags", 0),
        18 => ("odd flags", FIN | PSH | URG),
        _ => ("odd flags", random.byte()),
    }
}

fn tcp(mut header: Vec<u8>, flags: u8, from_outside: bool, random: &mut Random) -> Vec<u8> {
    let [ours, theirs] = if from_outside { SEQUENCES } else { [SEQUENCES[1], SEQUENCES[0]] };
    let ours = if random.once_in(16) { random.word() } else { ours };
    let sequence = if flags & SYN == 0 { ours } else { ours.wrapping_sub(1) };
    let acknowledgment = if flags & ACK == 0 { 0 } else { theirs };
    header.extend(sequence.to_be_bytes());
    header.extend(acknowledgment.to_be_bytes());
    let options = if random.once_in(8) { 4 } else { 0 };
    header.extend([0x50 + (options << 2), flags, 0x20, 0, 0, 0, 0, 0]);
    header.extend([1].repeat(usize::from(options)));
    if flags & PSH != 0 || random.once_in(8) {
        header.extend([0; 8]);
    }
    header
}

fn udp(mut header: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let data = random.one_of(&[0, 1, 8, 9, 24]);
    header.extend([0, 8 + data, 0, 0]);
    header.extend([7].repeat(usize::from(data)));
    header
}

fn udp_lite(mut header: Vec<u8>, random: &mut Random) -> Vec<u8> {
    // Covered: all of it, told in two ways.
    let coverage = random.one_of(&[0, 16]);
    header.extend([0, coverage, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header
}

fn icmp(tuple: &Tuple, random: &mut Random) -> Vec<u8> {
    let [kind, code] = tuple.to_port.to_be_bytes();
    let [high, low] = tuple.from_port.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, high, low, 0, 1];
    message.extend([0].repeat(random.index(2) * 24));
    message
}

/// Any first chunk; the tag of an INIT is zero.
fn sctp(mut header: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let chunk = random.one_of(&[1, 1, 1, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 64]);
    let tag: u32 = if chunk == 1 { 0 } else { 7 };
    header.extend(tag.to_be_bytes());
    header.extend([0; 4]);
    header.extend([chunk, 0, 0, 20]);
    header.extend([0, 0, 0, 9, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    header
}

/// With a call of PPTP where the tuple has a key.
fn gre(call: u16, random: &mut Random) -> (&'static str, Vec<u8>) {
    if call == 0 {
        let bytes = random.one_of(&[4, 8, 12, 2]);
        let header: [u8; 12] = [0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        return ("gre", header[..bytes].to_vec());
    }
    let [high, low] = call.to_be_bytes();
    let protocol = if random.once_in(8) { [8, 0] } else { [0x88, 0x0b] };
    let mut header = vec![0x30, 0x01];
    header.extend(protocol);
    header.extend([0, 4, high, low, 0, 0, 0, 1, 0, 0, 0, 0]);
    ("pptp", header)
}

/// A packet in the packet.
fn inner(tuple: &Tuple) -> Vec<u8> {
    let datagram = vec![0, 5, 0, 7, 0, 8, 0, 0];
    let packet = Packet::new(tuple.from, tuple.to, UDP, datagram);
    packet.frame(crate::network::TO_WAN).split_off(crate::frame::NETWORK_AT)
}
