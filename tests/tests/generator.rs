//! The flood's frames, made by the program in the kernel, read back by a library that had no part
//! in making them.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use clap::ValueEnum as _;
use crc::{CRC_32_ISCSI, Crc};
use ctguard_tests::{
    addresses::{EXPOSED_PORTS, FLOOD_PORT, Family},
    flood,
    recipe::{EXTENSION_HEADERS, FloodKind, Route, check_family},
    require,
};
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, Ipv6HeaderSlice, NetHeaders, PacketHeaders, TransportHeader,
    defrag::IpDefragPool,
};

const FRAMES: usize = 200;

/// What a packet with right checksums shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    source: IpAddr,
    destination: IpAddr,
    transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Transport {
    Syn { from: u16, to: u16 },
    Ack { from: u16, to: u16 },
    Udp { from: u16, to: u16 },
    Echo { identifier: u16 },
    SctpInit { to: u16 },
}

#[test]
fn every_packet_has_right_checksums_and_goes_at_the_target() {
    if !require::root("every_packet_has_right_checksums_and_goes_at_the_target") {
        return;
    }
    for (kind, family) in floods().filter(|(kind, _)| !kind.is_from_inside()) {
        let packets = sample(kind, family);
        let fragments = if kind == FloodKind::TinyFragments { 2 } else { 1 };
        assert_eq!(packets.len(), FRAMES / fragments, "{kind} {family}");
        for seen in packets {
            let port = match seen.transport {
                Transport::Syn { to, .. }
                | Transport::Ack { to, .. }
                | Transport::Udp { to, .. }
                | Transport::SctpInit { to } => to,
                Transport::Echo { .. } => FLOOD_PORT,
            };
            let target = SocketAddr::new(seen.destination, port);
            let imitates = kind == FloodKind::UdpAnswers;
            let at = kind.port(false).unwrap_or(FLOOD_PORT);
            let (first, last) = if imitates { EXPOSED_PORTS } else { (at, at) };
            assert!((first..=last).contains(&port), "{kind} {family}: {seen:?}");
            assert_eq!(target, family.flood_target(port), "{kind} {family}");
        }
    }
}

#[test]
fn one_source_has_many_ports_and_spoofed_sources_differ() {
    if !require::root("one_source_has_many_ports_and_spoofed_sources_differ") {
        return;
    }
    for (kind, family) in floods() {
        let packets = sample(kind, family);
        let sources: HashSet<_> = packets.iter().map(|seen| network(seen.source)).collect();
        if FROM_ONE_SOURCE.contains(&kind) {
            let source = if kind == FloodKind::SynAllowed {
                family.allowed_source()
            } else if kind.is_from_inside() {
                family.infected_host()
            } else {
                family.flood_source()
            };
            assert!(packets.iter().all(|seen| seen.source == source), "{kind}");
            assert_random(&packets, 1024..=u16::MAX);
        } else if ![FloodKind::Mixed, FloodKind::MixedRandom].contains(&kind) {
            assert_eq!(sources.len(), packets.len(), "{kind}: sources that a guard tells apart");
        }
    }
}

#[test]
fn each_kind_of_flood_has_the_packets_of_its_name() {
    if !require::root("each_kind_of_flood_has_the_packets_of_its_name") {
        return;
    }
    for (kind, family) in floods() {
        let right = |seen: &Seen| match (kind, seen.transport) {
            (
                FloodKind::Mixed | FloodKind::MixedRandom,
                Transport::Syn { .. } | Transport::Udp { .. },
            )
            | (
                FloodKind::SynOneSource
                | FloodKind::SynSpoofed
                | FloodKind::SynAnswered
                | FloodKind::SynPulses
                | FloodKind::Holders
                | FloodKind::Completers
                | FloodKind::ManyHolders
                | FloodKind::SynLive
                | FloodKind::SourcesCompleting
                | FloodKind::Bots
                | FloodKind::BotsPrefix
                | FloodKind::BotsPrefixV6
                | FloodKind::LanHost
                | FloodKind::SynAllowed
                | FloodKind::TinyFragments
                | FloodKind::LongExtensions,
                Transport::Syn { .. },
            )
            | (
                FloodKind::UdpOneSource
                | FloodKind::UdpSpoofed
                | FloodKind::UdpAnswered
                | FloodKind::LanHostUdp,
                Transport::Udp { .. },
            )
            | (FloodKind::Ack | FloodKind::AckOneSource, Transport::Ack { .. })
            | (FloodKind::Icmp, Transport::Echo { .. })
            | (FloodKind::Sctp, Transport::SctpInit { .. }) => true,
            (FloodKind::UdpAnswers, Transport::Udp { from, .. }) => [53, 123].contains(&from),
            _ => false,
        };
        let packets = sample(kind, family);
        assert_eq!(packets.iter().find(|seen| !right(seen)), None, "{kind} {family}");
    }
}

#[test]
fn a_mixed_flood_has_both_protocols_and_both_kinds_of_sources() {
    if !require::root("a_mixed_flood_has_both_protocols_and_both_kinds_of_sources") {
        return;
    }
    let packets = sample(FloodKind::Mixed, Family::Ipv4);
    let source = Family::Ipv4.flood_source();
    let udp = |seen: &Seen| matches!(seen.transport, Transport::Udp { .. });
    let kinds: HashSet<_> = packets.iter().map(|seen| (seen.source == source, udp(seen))).collect();
    assert_eq!(kinds.len(), 4);
}

#[test]
fn an_infected_host_addresses_another_host_each_time() {
    if !require::root("an_infected_host_addresses_another_host_each_time") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let packets = sample(FloodKind::LanHost, family);
        let hosts: HashSet<_> = packets.iter().map(|seen| network(seen.destination)).collect();
        assert_eq!(hosts.len(), packets.len(), "{family}");
    }
}

#[test]
fn members_of_a_crowd_take_turns_and_then_the_next_port() {
    if !require::root("members_of_a_crowd_take_turns_and_then_the_next_port") {
        return;
    }
    for (kind, family) in floods() {
        let Some(crowd) = kind.sources().crowd(family) else { continue };
        let mut pool = IpDefragPool::<(), ()>::new();
        let mut member = 0..crowd.members.min(1000);
        let route = route(kind, family);
        let turns = usize::try_from(crowd.members).expect("a small crowd") + 1;
        let frames = flood::sample(kind, route, turns).expect("the generator runs");
        let seen: Vec<_> = frames.iter().filter_map(|frame| read(frame, &mut pool)).collect();
        assert!(member.all(|member| seen[member as usize].source == crowd.member(member)));
        let to = route.port;
        assert_eq!(seen[0].transport, Transport::Syn { from: 1024, to }, "{kind} {family}");
        let last = seen.last().expect("packets");
        assert_eq!(last.source, crowd.member(0), "{kind} {family}");
        assert_eq!(last.transport, Transport::Syn { from: 1025, to }, "{kind} {family}");
    }
}

#[test]
fn identifiers_and_the_ports_of_imitated_answers_are_random() {
    if !require::root("identifiers_and_the_ports_of_imitated_answers_are_random") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        assert_random(&sample(FloodKind::Icmp, family), 0..=u16::MAX);
        let answers = sample(FloodKind::UdpAnswers, family);
        assert_random(&answers, EXPOSED_PORTS.0..=EXPOSED_PORTS.1);
        let from = |port| move |seen: &&Seen| matches!(seen.transport, Transport::Udp { from, .. } if from == port);
        let [dns, ntp] = [53, 123].map(|port| answers.iter().filter(from(port)).count());
        assert!(dns > 0 && ntp > 0 && dns + ntp == answers.len(), "{dns} and {ntp}");
    }
}

#[test]
fn a_tiny_first_fragment_hides_the_flags_of_its_syn() {
    if !require::root("a_tiny_first_fragment_hides_the_flags_of_its_syn") {
        return;
    }
    for pair in frames(FloodKind::TinyFragments, Family::Ipv4).chunks(2) {
        let [head, rest] = pair else { panic!("a fragment without the other") };
        let [head, rest] = [head, rest].map(|frame| {
            let headers = PacketHeaders::from_ethernet_slice(frame).expect("a well formed frame");
            let Some(NetHeaders::Ipv4(ip, _)) = headers.net else { panic!("no IPv4") };
            (ip, headers.payload.slice().len())
        });
        assert_eq!((head.1, rest.1), (8, 12), "bytes of the TCP header");
        assert_eq!((head.0.source, head.0.identification), (rest.0.source, rest.0.identification));
        assert!(head.0.more_fragments && !rest.0.more_fragments);
    }
}

#[test]
fn a_syn_lies_behind_sixteen_extension_headers() {
    if !require::root("a_syn_lies_behind_sixteen_extension_headers") {
        return;
    }
    for frame in frames(FloodKind::LongExtensions, Family::Ipv6) {
        let mut next = Ipv6HeaderSlice::from_slice(&frame[14..]).expect("IPv6").next_header();
        let mut extensions = 0;
        while next == IpNumber::IPV6_DESTINATION_OPTIONS {
            next = IpNumber(frame[54 + 8 * extensions]);
            extensions += 1;
        }
        assert_eq!((extensions, next), (EXTENSION_HEADERS, IpNumber::TCP));
    }
}

#[test]
fn a_flood_of_one_family_is_refused_in_the_other() {
    let refused = |kind, family| check_family(kind, family).map_err(|error| error.to_string());
    assert_eq!(
        refused(FloodKind::LongExtensions, Family::Ipv4),
        Err("a flood of long-extensions is IPv6, not IPv4".to_owned())
    );
    assert_eq!(
        refused(FloodKind::TinyFragments, Family::Ipv6),
        Err("a flood of tiny-fragments is IPv4, not IPv6".to_owned())
    );
}

const FROM_ONE_SOURCE: [FloodKind; 6] = [
    FloodKind::SynOneSource,
    FloodKind::UdpOneSource,
    FloodKind::AckOneSource,
    FloodKind::SynAllowed,
    FloodKind::LanHost,
    FloodKind::LanHostUdp,
];

/// All floods, in the families that they have.
fn floods() -> impl Iterator<Item = (FloodKind, Family)> {
    let families = [Family::Ipv4, Family::Ipv6];
    let all = FloodKind::value_variants().iter();
    let all = all.flat_map(move |kind| families.map(|family| (*kind, family)));
    all.filter(|(kind, family)| check_family(*kind, *family).is_ok())
}

fn frames(kind: FloodKind, family: Family) -> Vec<Vec<u8>> {
    flood::sample(kind, route(kind, family), FRAMES).expect("the generator runs")
}

fn route(kind: FloodKind, family: Family) -> Route {
    let link = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    Route { link, family, port: kind.port(false).unwrap_or(FLOOD_PORT) }
}

/// The packets of a flood, fragments put together.
fn sample(kind: FloodKind, family: Family) -> Vec<Seen> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let frames = frames(kind, family);
    frames.iter().filter_map(|frame| read(frame, &mut pool)).collect()
}

fn read(frame: &[u8], pool: &mut IpDefragPool<(), ()>) -> Option<Seen> {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a well formed frame");
    let net = headers.net.expect("an IP header");
    if let NetHeaders::Ipv4(ip, _) = &net {
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    }
    let fragmented = matches!(&net, NetHeaders::Ipv4(ip, _) if ip.is_fragmenting_payload());
    if fragmented {
        let sliced = etherparse::SlicedPacket::from_ethernet(frame).expect("a well formed frame");
        let whole = pool.process_sliced_packet(&sliced, (), ()).expect("fragments that fit")?;
        let (tcp, data) = etherparse::TcpHeader::from_slice(&whole.payload).expect("a TCP header");
        return Some(seen(&net, &TransportHeader::Tcp(tcp), data));
    }
    // The library reads no more than one header of destination options, and no SCTP.
    let (transport, data) = match headers.transport {
        Some(transport) => (transport, headers.payload.slice()),
        None => match behind_extensions(frame) {
            Some(transport) => transport,
            None => return Some(sctp(&net, headers.payload.slice())),
        },
    };
    Some(seen(&net, &transport, data))
}

/// The TCP header behind destination options that end the frame with it.
fn behind_extensions(frame: &[u8]) -> Option<(TransportHeader, &[u8])> {
    let options = IpNumber::IPV6_DESTINATION_OPTIONS;
    let ip = Ipv6HeaderSlice::from_slice(&frame[14..]).ok();
    let ip = ip.filter(|ip| ip.next_header() == options)?;
    let end = 54 + usize::from(ip.payload_length());
    let tcp = &frame[54 + 8 * EXTENSION_HEADERS..end];
    let (tcp, data) = etherparse::TcpHeader::from_slice(tcp).expect("a TCP header");
    Some((TransportHeader::Tcp(tcp), data))
}

fn seen(net: &NetHeaders, transport: &TransportHeader, data: &[u8]) -> Seen {
    let mut right = transport.clone();
    let (source, destination) = match net {
        NetHeaders::Ipv4(ip, _) => {
            right.update_checksum_ipv4(ip, data).expect("a checksum");
            (ip.source.into(), ip.destination.into())
        }
        NetHeaders::Ipv6(ip, _) => {
            right.update_checksum_ipv6(ip, data).expect("a checksum");
            (ip.source.into(), ip.destination.into())
        }
        other @ NetHeaders::Arp(_) => panic!("no part of a flood: {other:?}"),
    };
    if let TransportHeader::Tcp(tcp) = &mut right
        && tcp.checksum == 0
    {
        // Both zeroes of one's complement are right, and the generator knows only one of them.
        tcp.checksum = u16::MAX;
    }
    assert_eq!(*transport, right, "the transport's checksum");
    let transport = match transport {
        TransportHeader::Tcp(tcp) => {
            let (from, to) = (tcp.source_port, tcp.destination_port);
            assert!(tcp.syn != tcp.ack && !tcp.rst && !tcp.fin, "{tcp:?}");
            if tcp.syn { Transport::Syn { from, to } } else { Transport::Ack { from, to } }
        }
        TransportHeader::Udp(udp) => {
            Transport::Udp { from: udp.source_port, to: udp.destination_port }
        }
        TransportHeader::Icmpv4(icmp) => {
            let Icmpv4Type::EchoRequest(echo) = &icmp.icmp_type else { panic!("{icmp:?}") };
            Transport::Echo { identifier: echo.id }
        }
        TransportHeader::Icmpv6(icmp) => {
            let Icmpv6Type::EchoRequest(echo) = &icmp.icmp_type else { panic!("{icmp:?}") };
            Transport::Echo { identifier: echo.id }
        }
    };
    Seen { source, destination, transport }
}

fn sctp(net: &NetHeaders, packet: &[u8]) -> Seen {
    let (source, destination, protocol): (IpAddr, IpAddr, _) = match net {
        NetHeaders::Ipv4(ip, _) => (ip.source.into(), ip.destination.into(), ip.protocol),
        NetHeaders::Ipv6(ip, _) => (ip.source.into(), ip.destination.into(), ip.next_header),
        other @ NetHeaders::Arp(_) => panic!("no part of a flood: {other:?}"),
    };
    assert_eq!(protocol, IpNumber::SCTP);
    let mut covered = packet.to_vec();
    let field: [u8; 4] = covered.splice(8..12, [0; 4]).collect::<Vec<_>>().try_into().expect("4");
    let checksum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&covered);
    assert_eq!(u32::from_le_bytes(field), checksum, "the CRC32c");
    assert_eq!((packet.len(), packet[12], &packet[4..8]), (32, 1, &[0; 4][..]), "an INIT, no tag");
    let to = u16::from_be_bytes([packet[2], packet[3]]);
    Seen { source, destination, transport: Transport::SctpInit { to } }
}

/// What a guard counts as one source: an IPv4 address, an IPv6 /64.
fn network(source: IpAddr) -> u128 {
    match source {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => u128::from(ip) >> 64,
    }
}

/// The numbers that floods draw lie in the range, and seldom coincide.
fn assert_random(packets: &[Seen], range: RangeInclusive<u16>) {
    let drawn = packets.iter().map(|seen| match seen.transport {
        Transport::Udp { from: 53 | 123, to } => to,
        Transport::Echo { identifier: drawn }
        | Transport::Syn { from: drawn, .. }
        | Transport::Ack { from: drawn, .. }
        | Transport::Udp { from: drawn, .. } => drawn,
        Transport::SctpInit { .. } => panic!("nothing is drawn"),
    });
    let drawn: HashSet<_> = drawn.collect();
    assert!(drawn.len() > packets.len() - 5, "{} numbers", drawn.len());
    assert!(drawn.iter().all(|number| range.contains(number)));
}
