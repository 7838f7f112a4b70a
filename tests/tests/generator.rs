//! The flood's frames, made by the program in the kernel, read back by a library that had no part
//! in making them.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use ctguard_tests::{
    addresses::{FLOOD_PORT, Family},
    flood,
    recipe::{FloodKind, Route},
    require,
};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

const FRAMES: usize = 200;

/// Source, source port and whether it is TCP, of a frame whose checksums are right.
type Seen = (IpAddr, u16, bool);

#[test]
fn every_frame_has_right_checksums_and_goes_at_the_target() {
    if !require::root("every_frame_has_right_checksums_and_goes_at_the_target") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        for kind in KINDS {
            assert_eq!(sample(kind, family).len(), FRAMES, "{kind} {family:?}");
        }
    }
}

#[test]
fn one_source_has_many_ports_and_spoofed_sources_differ() {
    if !require::root("one_source_has_many_ports_and_spoofed_sources_differ") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let one = sample(FloodKind::SynOneSource, family);
        let ports: HashSet<u16> = one.iter().map(|seen| seen.1).collect();
        assert!(one.iter().all(|seen| seen.0 == family.flood_source()));
        assert!(ports.len() > FRAMES - 5, "{} ports", ports.len());
        assert!(ports.iter().all(|port| *port >= 1024));

        let spoofed = sample(FloodKind::UdpSpoofed, family);
        let sources: HashSet<_> = spoofed.iter().map(|seen| network(seen.0)).collect();
        assert_eq!(sources.len(), FRAMES, "sources that a guard tells apart");
    }
}

#[test]
fn a_mixed_flood_has_both_protocols_and_both_kinds_of_sources() {
    if !require::root("a_mixed_flood_has_both_protocols_and_both_kinds_of_sources") {
        return;
    }
    let frames = sample(FloodKind::Mixed, Family::Ipv4);
    let source = Family::Ipv4.flood_source();
    let kinds: HashSet<_> = frames.iter().map(|seen| (seen.0 == source, seen.2)).collect();
    assert_eq!(kinds.len(), 4);
}

const KINDS: [FloodKind; 7] = [
    FloodKind::SynOneSource,
    FloodKind::SynSpoofed,
    FloodKind::UdpOneSource,
    FloodKind::UdpSpoofed,
    FloodKind::Mixed,
    FloodKind::AckOneSource,
    FloodKind::AckSpoofed,
];

fn sample(kind: FloodKind, family: Family) -> Vec<Seen> {
    let link = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let route = Route { link, family, port: FLOOD_PORT };
    let frames = flood::sample(kind, route, FRAMES).expect("the generator runs");
    frames.iter().map(|frame| read(frame, family)).collect()
}

fn read(frame: &[u8], family: Family) -> Seen {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a well formed frame");
    let payload = headers.payload.slice();
    let transport = headers.transport.expect("a transport header");
    let mut right = transport.clone();
    let (source, destination): (IpAddr, IpAddr) = match headers.net.expect("an IP header") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            right.update_checksum_ipv4(&ip, payload).expect("a checksum");
            (ip.source.into(), ip.destination.into())
        }
        NetHeaders::Ipv6(ip, _) => {
            right.update_checksum_ipv6(&ip, payload).expect("a checksum");
            (ip.source.into(), ip.destination.into())
        }
        other @ NetHeaders::Arp(_) => panic!("no part of a flood: {other:?}"),
    };
    assert_eq!(transport, right, "the transport's checksum");
    let (from, to, tcp) = match transport {
        TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port, true),
        TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port, false),
        other @ (TransportHeader::Icmpv4(_) | TransportHeader::Icmpv6(_)) => {
            panic!("no part of a flood: {other:?}")
        }
    };
    assert_eq!(SocketAddr::new(destination, to), family.flood_target(FLOOD_PORT));
    (source, from, tcp)
}

/// What a guard counts as one source: an IPv4 address, an IPv6 /64.
fn network(source: IpAddr) -> u128 {
    match source {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => u128::from(ip) >> 64,
    }
}
