//! The parser against packets that etherparse built, whole and cut at every byte.

use etherparse::{IpFragOffset, IpNumber, PacketBuilder, PacketBuilderStep};

use super::{
    Fragment, Ipv4, Ipv6, Malformed, Network, Packet, Reader, Transport, ipv6::MOST_EXTENSIONS,
    network_offset, parse_ipv4, parse_ipv6, parse_link, parse_plain, protocol,
    reader::testing::AlignedFrame,
};

const REMOTE: [u8; 4] = [192, 0, 2, 1];
const LOCAL: [u8; 4] = [198, 51, 100, 2];
const REMOTE6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const LOCAL6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const PORTS: u32 = 0x1234_0050;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

#[derive(Debug, PartialEq)]
enum Parsed {
    V4(Packet<Ipv4>),
    V6(Packet<Ipv6>),
    Else(Network),
}

#[test]
fn a_syn_is_read_whatever_carries_its_ip_packet() {
    let ip = after_ethernet(&syn(ethernet()));
    for (link, name) in [
        (vec![0x08, 0x00], "Ethernet"),
        (vec![0x81, 0x00, 0, 7, 0x08, 0x00], "802.1Q"),
        (vec![0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 8, 0x08, 0x00], "802.1ad"),
        (vec![0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0x00, 0x21], "PPPoE"),
        (vec![0x81, 0x00, 0, 7, 0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0x00, 0x21], "PPPoE in 802.1Q"),
    ] {
        let frame = [&[2; 12], link.as_slice(), &ip].concat();
        assert_eq!(parse(&frame), Ok(Parsed::V4(tcp_packet())), "{name}");
        let begins = u32::try_from(frame.len() - ip.len()).ok();
        assert_eq!(network_offset(AlignedFrame::new(&frame).reader()), begins, "{name}");
    }
}

#[test]
fn ipv6_is_read_in_pppoe() {
    let ip = after_ethernet(&syn6());
    let frame = [&[2; 12], [0x88, 0x64, 0x11, 0, 0, 1, 0, 62, 0x00, 0x57].as_slice(), &ip].concat();
    assert!(matches!(parse(&frame), Ok(Parsed::V6(_))));
}

#[test]
fn a_third_tag_is_not_read_and_said_so() {
    let tags = [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0];
    let frame = [&[2; 12], tags.as_slice(), &after_ethernet(&syn(ethernet()))].concat();
    assert_eq!(parse(&frame), Ok(Parsed::Else(Network::Unparsed)));
}

#[test]
fn a_frame_that_carries_no_ip_is_told_apart() {
    let arp = [[2; 12].as_slice(), &[0x08, 0x06], &[0; 28]].concat();
    assert_eq!(parse(&arp), Ok(Parsed::Else(Network::NotIp)));
}

#[test]
fn the_destination_address_of_the_frame_is_read() {
    let frame = AlignedFrame::new(&syn(PacketBuilder::ethernet2([2; 6], [0x02, 3, 4, 5, 6, 7])));
    let link = parse_link(&mut frame.reader()).unwrap();
    assert_eq!(link.network, Network::Ipv4);
    assert_eq!(link.ethernet.destination(), 0x0203_0405_0607);
    assert!(link.ethernet.is_unicast());
}

#[test]
fn a_frame_cut_at_any_byte_is_never_read_past_its_end() {
    for (whole, network, transport) in
        [(syn(ethernet()), 34, 54), (syn6(), 54, 74), (udp(), 34, 42)]
    {
        for length in 0..network {
            assert!(parse(&whole[..length]).is_err(), "{length} of {network} bytes");
        }
        for length in network..transport {
            assert!(is_unread(&whole[..length]), "{length} of {transport} bytes");
        }
        assert!(!is_unread(&whole[..transport]), "all {transport} bytes");
    }
}

#[test]
fn a_header_for_which_the_network_header_leaves_no_room_is_malformed() {
    let mut cut = syn(ethernet());
    cut[16..18].copy_from_slice(&39_u16.to_be_bytes());
    assert_eq!(parse(&cut), Err(Malformed::Tcp));
    let mut cut = udp();
    cut[16..18].copy_from_slice(&27_u16.to_be_bytes());
    assert_eq!(parse(&cut), Err(Malformed::Udp));
}

#[test]
fn ports_are_found_behind_ipv4_options_of_every_length() {
    for words in 0..=10_u8 {
        let mut frame = syn(ethernet());
        let options = vec![1; usize::from(words) * 4];
        frame[14] = 0x40 | (5 + words);
        let total = 40 + u16::from(words) * 4;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame.splice(34..34, options);
        assert_eq!(parse(&frame), Ok(Parsed::V4(tcp_packet())), "{words} words of options");
    }
}

#[test]
fn every_order_of_extension_headers_leads_to_the_segment() {
    let kinds = [HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION_OPTIONS];
    for first in [HOP_BY_HOP, ROUTING, AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT] {
        for second in kinds {
            for third in kinds {
                let frame = chained(&[first, second, third]);
                let Ok(Parsed::V6(packet)) = parse(&frame) else {
                    panic!("{first}, {second}, {third}");
                };
                assert!(matches!(packet.transport, Transport::Tcp { ports: PORTS, .. }));
                for length in 54..frame.len() {
                    assert!(is_unread(&frame[..length]), "{length} bytes of a chain");
                }
            }
        }
    }
}

#[test]
fn a_chain_longer_than_is_read_is_said_to_be_so() {
    let read = chained(&[DESTINATION_OPTIONS; MOST_EXTENSIONS]);
    let Ok(Parsed::V6(packet)) = parse(&read) else { panic!("{MOST_EXTENSIONS} headers") };
    assert!(matches!(packet.transport, Transport::Tcp { .. }));

    let longer = chained(&[DESTINATION_OPTIONS; MOST_EXTENSIONS + 1]);
    let Ok(Parsed::V6(packet)) = parse(&longer) else { panic!("one more header") };
    assert_eq!(packet.transport, Transport::Unread);
}

#[test]
fn a_chain_that_ends_outside_its_packet_is_unread() {
    let mut frame = chained(&[DESTINATION_OPTIONS]);
    frame[18..20].copy_from_slice(&8_u16.to_be_bytes());
    assert!(is_unread(&frame), "the kernel takes the option's word for what follows");
}

#[test]
fn a_first_fragment_whose_chain_goes_on_in_the_next_is_tiny() {
    let mut frame = chained(&[FRAGMENT, DESTINATION_OPTIONS]);
    frame[14 + 40 + 3] |= 1;
    frame[18..20].copy_from_slice(&16_u16.to_be_bytes());
    frame.truncate(14 + 40 + 16);
    let Ok(Parsed::V6(packet)) = parse(&frame) else { panic!("a first fragment") };
    assert_eq!(packet.transport, Transport::TinyFragment);
}

#[test]
fn a_fragment_in_a_fragment_is_not_taken_for_a_whole_packet() {
    let mut frame = chained(&[FRAGMENT, FRAGMENT]);
    assert!(is_unread(&frame));
    frame[14 + 40 + 3] |= 1;
    let Ok(Parsed::V6(packet)) = parse(&frame) else { panic!("a first fragment") };
    assert_eq!(packet.transport, Transport::TinyFragment);
}

#[test]
fn compressed_and_bundled_ppp_is_not_parsed() {
    for protocol in [[0x21, 0x45], [0x00, 0x3d], [0x00, 0xfd]] {
        let frame = [&[2; 12], [0x88, 0x64, 0x11, 0, 0, 1, 0, 42].as_slice(), &protocol, &[0; 40]];
        assert_eq!(parse(&frame.concat()), Ok(Parsed::Else(Network::Unparsed)), "{protocol:x?}");
    }
}

#[test]
fn a_later_fragment_has_no_ports() {
    for offset in [2, 100, 0x1fff] {
        assert_eq!(transport(&fragment(offset, true, 8)), Ok(Transport::LaterFragment));
        assert_eq!(transport(&fragment(offset, false, 8)), Ok(Transport::LaterFragment));
    }
}

#[test]
fn a_fragment_that_could_overlap_a_tcp_header_is_tiny() {
    assert_eq!(transport(&fragment(1, false, 8)), Ok(Transport::TinyFragment));
}

#[test]
fn a_first_fragment_without_the_whole_tcp_header_is_tiny_even_when_the_frame_is_padded() {
    for payload in [0, 8, 16] {
        let mut frame = fragment(0, true, payload);
        frame.resize(60, 0);
        assert_eq!(transport(&frame), Ok(Transport::TinyFragment), "{payload} bytes");
    }
    assert!(matches!(transport(&fragment(0, true, 24)), Ok(Transport::Tcp { .. })));
}

#[test]
fn a_first_ipv6_fragment_without_the_whole_header_is_tiny() {
    let mut frame = chained(&[FRAGMENT]);
    let more_fragments = 14 + 40 + 3;
    frame[more_fragments] |= 1;
    frame[18..20].copy_from_slice(&16_u16.to_be_bytes());
    frame.truncate(14 + 40 + 16);
    let Ok(Parsed::V6(packet)) = parse(&frame) else { panic!("a first fragment") };
    assert_eq!(packet.transport, Transport::TinyFragment);
}

#[test]
fn impossible_lengths_are_malformed() {
    let mut short_ihl = syn(ethernet());
    short_ihl[14] = 0x44;
    assert_eq!(parse(&short_ihl), Err(Malformed::Ipv4));

    let mut short_total = syn(ethernet());
    short_total[16..18].copy_from_slice(&19_u16.to_be_bytes());
    assert_eq!(parse(&short_total), Err(Malformed::Ipv4));

    let mut short_offset = syn(ethernet());
    short_offset[46] = 0x40;
    assert_eq!(parse(&short_offset), Err(Malformed::Tcp));

    let mut long_offset = syn(ethernet());
    long_offset[46] = 0x60;
    assert_eq!(parse(&long_offset), Err(Malformed::Tcp));

    let mut short_udp = udp();
    short_udp[38..40].copy_from_slice(&7_u16.to_be_bytes());
    assert_eq!(parse(&short_udp), Err(Malformed::Udp));
}

#[test]
fn protocols_with_ports_are_told_apart_by_them_and_others_by_addresses() {
    for (number, key) in [
        (protocol::SCTP, PORTS),
        (protocol::UDPLITE, PORTS),
        (protocol::DCCP, PORTS),
        (50, 0),
        (4, 0),
    ] {
        assert_eq!(transport(&raw(number, &PORTS.to_be_bytes())), Ok(Transport::Other { key }));
    }
}

#[test]
fn pptp_is_told_apart_by_its_call() {
    let plain = raw(protocol::GRE, &[0, 0, 8, 0, 0, 0, 0, 0]);
    let pptp = raw(protocol::GRE, &[0x30, 0x01, 0x88, 0x0b, 0, 0, 0x12, 0x34]);
    assert_eq!(transport(&plain), Ok(Transport::Other { key: 0 }));
    assert_eq!(transport(&pptp), Ok(Transport::Other { key: 0x1234 }));
}

/// The parser and etherparse agree on the ports of whatever etherparse can read, over frames with
/// random bytes changed.
#[test]
fn changed_at_random_packets_are_read_as_etherparse_reads_them() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut compared = 0;
    for _ in 0..20_000 {
        let mut frame = [syn(ethernet()), syn6(), udp()][next(3)].clone();
        let position = 14 + next(frame.len() - 14);
        frame[position] = u8::try_from(next(256)).unwrap();
        let Ok(Parsed::V4(Packet { transport, .. })) = parse(&frame) else { continue };
        let Ok(reference) = etherparse::SlicedPacket::from_ethernet(&frame) else { continue };
        let (ours, theirs) = match (transport, reference.transport) {
            (Transport::Tcp { ports, .. }, Some(etherparse::TransportSlice::Tcp(tcp))) => {
                (ports, join(tcp.source_port(), tcp.destination_port()))
            }
            (Transport::Udp { ports }, Some(etherparse::TransportSlice::Udp(udp))) => {
                (ports, join(udp.source_port(), udp.destination_port()))
            }
            _ => continue,
        };
        assert_eq!(ours, theirs, "{frame:02x?}");
        compared += 1;
    }
    assert!(compared > 5_000, "only {compared} frames compared");
}

#[test]
fn a_plain_segment_or_datagram_is_read_at_fixed_offsets() {
    for (frame, bytes) in [(syn(ethernet()), 54), (udp(), 42)] {
        assert!(parse_plain(AlignedFrame::new(&frame).reader()).is_some());
        for length in 0..bytes {
            let cut = AlignedFrame::new(&frame[..length]);
            assert_eq!(parse_plain(cut.reader()), None, "{length} of {bytes} bytes");
        }
    }
}

/// Parses a frame. The parser of plain packets must agree, or leave the packet to the other.
fn parse(frame: &[u8]) -> Result<Parsed, Malformed> {
    let frame = AlignedFrame::new(frame);
    let parsed = parse_any(&mut frame.reader());
    if let Some(plain) = parse_plain(frame.reader()) {
        assert_eq!(parsed, Ok(Parsed::V4(plain)));
    }
    parsed
}

fn parse_any(reader: &mut Reader<'_>) -> Result<Parsed, Malformed> {
    match parse_link(reader)?.network {
        Network::Ipv4 => parse_ipv4(reader).map(Parsed::V4),
        Network::Ipv6 => parse_ipv6(reader).map(Parsed::V6),
        network @ (Network::NotIp | Network::Unparsed) => Ok(Parsed::Else(network)),
    }
}

fn is_unread(frame: &[u8]) -> bool {
    match parse(frame).unwrap() {
        Parsed::V4(packet) => packet.transport == Transport::Unread,
        Parsed::V6(packet) => packet.transport == Transport::Unread,
        Parsed::Else(_) => false,
    }
}

fn transport(frame: &[u8]) -> Result<Transport, Malformed> {
    let Parsed::V4(packet) = parse(frame)? else { panic!("not IPv4") };
    Ok(packet.transport)
}

fn tcp_packet() -> Packet<Ipv4> {
    Packet {
        source: Ipv4(u32::from_be_bytes(REMOTE)),
        destination: Ipv4(u32::from_be_bytes(LOCAL)),
        protocol: protocol::TCP,
        transport: Transport::Tcp {
            ports: PORTS,
            flags: super::TcpFlags(0x02),
            sequence: 1,
            carries_data: false,
        },
    }
}

fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2; 6], [4; 6])
}

fn syn(link: PacketBuilderStep<etherparse::Ethernet2Header>) -> Vec<u8> {
    let mut frame = Vec::new();
    link.ipv4(REMOTE, LOCAL, 64).tcp(0x1234, 80, 1, 1024).syn().write(&mut frame, &[]).unwrap();
    frame
}

fn syn6() -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = ethernet().ipv6(REMOTE6, LOCAL6, 64).tcp(0x1234, 80, 1, 1024).syn();
    packet.write(&mut frame, &[]).unwrap();
    frame
}

fn udp() -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet().ipv4(REMOTE, LOCAL, 64).udp(0x1234, 80).write(&mut frame, &[]).unwrap();
    frame
}

/// A TCP fragment with `payload` bytes at `offset`, in units of eight bytes.
fn fragment(offset: u16, more: bool, payload: usize) -> Vec<u8> {
    let mut ip = etherparse::Ipv4Header::new(
        u16::try_from(payload).unwrap(),
        64,
        IpNumber::TCP,
        REMOTE,
        LOCAL,
    )
    .unwrap();
    ip.fragment_offset = IpFragOffset::try_new(offset).unwrap();
    ip.more_fragments = more;
    let segment = &after_ethernet(&syn(ethernet()))[20..];
    let mut data = segment.to_vec();
    data.resize(payload, 0);
    [&[2; 12], [8, 0].as_slice(), &ip.to_bytes(), &data].concat()
}

fn raw(number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let ip = etherparse::Ipv4Header::new(length, 64, IpNumber(number), REMOTE, LOCAL).unwrap();
    [&[2; 12], [8, 0].as_slice(), &ip.to_bytes(), payload].concat()
}

/// An IPv6 SYN behind extension headers of these kinds, written by hand: etherparse's builder keeps
/// to the recommended order.
fn chained(kinds: &[u8]) -> Vec<u8> {
    let whole = syn6();
    let (headers, segment) = whole.split_at(54);
    let mut chain = Vec::new();
    for position in 0..kinds.len() {
        let next = kinds.get(position + 1).copied().unwrap_or(protocol::TCP);
        match kinds[position] {
            FRAGMENT => chain.extend([next, 0, 0, 0, 0, 0, 0, 1]),
            AUTHENTICATION => chain.extend([next, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            _ => chain.extend([next, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        }
    }
    let mut frame = [headers, &chain, segment].concat();
    frame[20] = kinds[0];
    let payload = u16::try_from(chain.len() + segment.len()).unwrap();
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    frame
}

fn after_ethernet(frame: &[u8]) -> Vec<u8> {
    frame[14..].to_vec()
}

fn join(source: u16, destination: u16) -> u32 {
    u32::from(source) << 16 | u32::from(destination)
}

#[test]
fn a_fragment_is_told_by_its_offset_and_flag() {
    assert_eq!(Fragment::at(0, false), Fragment::Whole);
    assert_eq!(Fragment::at(0, true), Fragment::First);
    assert!(Fragment::at(1, true).is_later());
    assert!(Fragment::at(2, false).is_later());
}
