//! Answers as etherparse reads them, whatever carries the SYN.

use etherparse::{
    IpFragOffset, NetSlice, PacketBuilder, SlicedPacket, TcpHeaderSlice, TransportSlice,
};

use super::*;
use crate::{
    challenge::testing::{Random, ones_complement},
    packet::{self, Network, Packet, Transport, reader::testing::AlignedFrame},
};

const COOKIE: u32 = 0xc00c_1e5a;
const SEQUENCE: u32 = 0x0102_0304;
const PPP_IPV4: [u8; 2] = [0x00, 0x21];
const PPP_IPV6: [u8; 2] = [0x00, 0x57];

#[repr(align(2))]
struct Aligned<const N: usize>([u8; N]);

#[test]
fn a_syn_is_answered_whatever_carries_it() {
    for (name, syn) in syns() {
        let (answer, offset) = answered(&syn);
        assert_eq!(answer[..6], syn[6..12], "{name}: to the station that asked");
        assert_eq!(answer[6..12], syn[..6], "{name}: from the one that was asked");
        let session = syn[12..offset].windows(2).any(|bytes| bytes == [0x88, 0x64]);
        let kept = if session { offset - 4 } else { offset };
        assert_eq!(answer[12..kept], syn[12..kept], "{name}: in the same VLAN and session");
        if session {
            let length = u16::from_be_bytes([answer[offset - 4], answer[offset - 3]]);
            assert_eq!(usize::from(length), answer.len() - offset + 2, "{name}");
            assert_eq!(answer[offset - 2..offset], syn[offset - 2..offset], "{name}");
        }
        is_a_bare_ack(name, &answer[offset..], &syn[offset..]);
    }
}

/// The answer's packet, compared with the SYN's as etherparse reads both.
fn is_a_bare_ack(name: &str, answer: &[u8], syn: &[u8]) {
    let (ours, theirs) = (SlicedPacket::from_ip(answer).unwrap(), SlicedPacket::from_ip(syn));
    let theirs = theirs.unwrap();
    let tcp = match (ours.net.unwrap(), theirs.net.unwrap()) {
        (NetSlice::Ipv4(ours), NetSlice::Ipv4(theirs)) => {
            let (ours, theirs) = (ours.header(), theirs.header());
            assert_eq!(ours.destination(), theirs.source(), "{name}");
            assert_eq!(ours.source(), theirs.destination(), "{name}");
            assert_eq!(ours.header_checksum(), ours.to_header().calc_header_checksum(), "{name}");
            assert_eq!(usize::from(ours.total_len()), answer.len(), "{name}");
            assert_eq!((ours.ihl(), ours.ttl(), ours.identification()), (5, 64, 0), "{name}");
            assert!(ours.dont_fragment() && !ours.more_fragments(), "{name}");
            assert_eq!(ours.fragments_offset(), IpFragOffset::ZERO, "{name}");
            let tcp = TcpHeaderSlice::from_slice(&answer[20..]).unwrap();
            let checksum = tcp.calc_checksum_ipv4(&ours, &[]).unwrap();
            assert_eq!(tcp.checksum(), checksum, "{name}");
            tcp
        }
        (NetSlice::Ipv6(ours), NetSlice::Ipv6(theirs)) => {
            let (ours, theirs) = (ours.header(), theirs.header());
            assert_eq!(ours.destination(), theirs.source(), "{name}");
            assert_eq!(ours.source(), theirs.destination(), "{name}");
            assert_eq!(usize::from(ours.payload_length()), answer.len() - 40, "{name}");
            assert_eq!((ours.next_header().0, ours.hop_limit()), (protocol::TCP, 64), "{name}");
            let tcp = TcpHeaderSlice::from_slice(&answer[40..]).unwrap();
            let checksum = tcp.calc_checksum_ipv6(&ours, &[]).unwrap();
            assert_eq!(tcp.checksum(), checksum, "{name}");
            tcp
        }
        other => panic!("{name}: {other:?}"),
    };
    let Some(TransportSlice::Tcp(asked)) = theirs.transport else { panic!("{name}") };
    assert_eq!(tcp.source_port(), asked.destination_port(), "{name}");
    assert_eq!(tcp.destination_port(), asked.source_port(), "{name}");
    assert_eq!(tcp.acknowledgment_number(), COOKIE, "{name}");
    assert_eq!(tcp.sequence_number(), !SEQUENCE, "{name}");
    assert_eq!((tcp.window_size(), tcp.urgent_pointer()), (1024, 0), "{name}");
    assert_eq!(tcp.slice()[12..14], [0x50, 0x10], "{name}: no options, and ACK alone");
}

#[test]
fn checksums_are_right_whatever_is_in_the_answer() {
    let mut random = Random::new();
    for _ in 0..20_000 {
        let (four, six) = (random.connection4(), random.connection6());
        let (sequence, cookie) = (random.word(), random.word());
        sums_to_nothing(&Answer { connection: four, sequence, cookie });
        sums_to_nothing(&Answer { connection: six, sequence, cookie });
    }
    for word in [0, u32::MAX] {
        let connection = Connection { source: Ipv4(word), destination: Ipv4(word), ports: word };
        sums_to_nothing(&Answer { connection, sequence: word, cookie: word });
    }
}

/// With its checksum in it whatever is summed up is 0xffff (RFC 1071, section 1).
fn sums_to_nothing<A: Answering>(answer: &Answer<A>) {
    let mut frame = Aligned([0; 74]);
    let bytes = write_answer(&mut frame.0, answer).unwrap();
    let packet = &frame.0[14..bytes];
    let (network, segment) = packet.split_at(packet.len() - 20);
    let addresses = if A::FAMILY == 4 { 12 } else { 8 };
    if A::FAMILY == 4 {
        assert_eq!(ones_complement(network), 0xffff);
    }
    let covered = [&network[addresses..], segment, &[0, protocol::TCP, 0, 20]].concat();
    assert_eq!(ones_complement(&covered), 0xffff);
}

#[test]
fn no_answer_is_longer_than_the_shortest_syn() {
    for (name, syn) in syns() {
        let (answer, offset) = answered(&syn);
        assert!(answer.len() <= syn.len(), "{name}");
        let network = if syn[offset] >> 4 == 4 { 20 } else { 40 };
        assert_eq!(answer.len(), offset + network + 20, "{name}");
    }
    let bare = ethernet(&[], [8, 0], &ipv4(&[], &[]));
    assert_eq!(answered(&bare).0.len(), bare.len());
}

#[test]
fn a_frame_too_short_for_an_answer_is_left_alone() {
    let answer =
        Answer { connection: Random::new().connection6(), sequence: SEQUENCE, cookie: COOKIE };
    let mut frame = Aligned([7; 73]);
    assert_eq!(write_answer(&mut frame.0, &answer), None);
    assert_eq!(frame.0, [7; 73]);
}

/// A SYN in each kind of frame that the parser reads.
fn syns() -> Vec<(&'static str, Vec<u8>)> {
    let (four, six) = (ipv4(&[], &TCP_OPTIONS), ipv6(&[], &TCP_OPTIONS));
    let tag = [0x81, 0, 0x60, 7];
    let tags = [0x88, 0xa8, 0, 9, 0x81, 0, 0, 7];
    let pppoe = |packet: &[u8], protocol: [u8; 2]| {
        let length = u16::try_from(packet.len() + 2).unwrap().to_be_bytes();
        [[0x11, 0, 0x12, 0x34].as_slice(), &length, &protocol, packet].concat()
    };
    vec![
        ("IPv4", ethernet(&[], [8, 0], &four)),
        ("IPv4 with options", ethernet(&[], [8, 0], &ipv4(&[1; 12], &TCP_OPTIONS))),
        ("IPv4 with options of all lengths", ethernet(&[], [8, 0], &ipv4(&[1; 40], &[]))),
        ("IPv6", ethernet(&[], [0x86, 0xdd], &six)),
        ("IPv6 with extensions", ethernet(&[], [0x86, 0xdd], &ipv6(&[0, 60, 60], &[]))),
        ("one tag", ethernet(&tag, [8, 0], &four)),
        ("two tags", ethernet(&tags, [8, 0], &four)),
        ("two tags, IPv6", ethernet(&tags, [0x86, 0xdd], &six)),
        ("PPPoE", ethernet(&[], [0x88, 0x64], &pppoe(&four, PPP_IPV4))),
        ("PPPoE, IPv6", ethernet(&[], [0x88, 0x64], &pppoe(&six, PPP_IPV6))),
        ("PPPoE in two tags", ethernet(&tags, [0x88, 0x64], &pppoe(&four, PPP_IPV4))),
    ]
}

/// What Linux sends: segment size, SACK, timestamps, window scale.
const TCP_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];

fn ethernet(tags: &[u8], ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&[2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4, 5], tags, &ethertype, packet].concat()
}

fn ipv4(ip_options: &[u8], tcp_options: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 2], 57);
    let segment = ip.tcp(0x1234, 80, SEQUENCE, 64_240).syn().options_raw(tcp_options).unwrap();
    segment.write(&mut packet, &[]).unwrap();
    packet.splice(20..20, ip_options.iter().copied());
    packet[0] += u8::try_from(ip_options.len() / 4).unwrap();
    let total = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet
}

/// Extension headers of eight bytes each.
fn ipv6(extensions: &[u8], tcp_options: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv6([0x20; 16], [0xfd; 16], 57);
    let segment = ip.tcp(0x1234, 80, SEQUENCE, 64_240).syn().options_raw(tcp_options).unwrap();
    segment.write(&mut packet, &[]).unwrap();
    for kind in extensions.iter().rev() {
        let next = std::mem::replace(&mut packet[6], *kind);
        packet.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
    }
    let payload = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet
}

/// The frame's answer, and where its network header lies.
fn answered(syn: &[u8]) -> (Vec<u8>, usize) {
    let aligned = AlignedFrame::new(syn);
    let offset = packet::network_offset(aligned.reader()).unwrap();
    let mut reader = aligned.reader();
    let mut frame = syn.to_vec();
    let bytes = match packet::parse_link(&mut reader).unwrap().network {
        Network::Ipv4 => write_answer(&mut frame, &to(&packet::parse_ipv4(&mut reader).unwrap())),
        Network::Ipv6 => write_answer(&mut frame, &to(&packet::parse_ipv6(&mut reader).unwrap())),
        other @ (Network::NotIp | Network::Unparsed) => panic!("{other:?}"),
    };
    let beyond = bytes.unwrap();
    assert_eq!(frame[beyond..], syn[beyond..], "only the answer's own bytes are written");
    frame.truncate(beyond);
    (frame, usize::try_from(offset).unwrap())
}

fn to<A: Address>(packet: &Packet<A>) -> Answer<A> {
    let Packet { source, destination, transport, .. } = *packet;
    let Transport::Tcp { ports, sequence, .. } = transport else { panic!("{transport:?}") };
    let connection = Connection { source, destination, ports };
    Answer { connection, sequence, cookie: COOKIE }
}
