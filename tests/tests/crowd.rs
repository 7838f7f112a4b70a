//! Floods of sources that answer, through a real router without a guard.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use ctguard_tests::{
    addresses::{CROWD_PORT, Family},
    cpus::Cpus,
    flood::{Flood, Flooded, Sampler},
    object::{self, Program},
    product::wait_for,
    recipe::{FloodKind, Rate, Route, check_family, layout::CLIENT_SEQUENCE},
    report::ratio,
    require,
    router::{ISP, Network, SERVERS, WAN},
    table,
    tcp_states::{State, TcpStates},
    wan,
};
use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TcpHeader, TransportHeader};

const COMPLETING: [FloodKind; 4] =
    [FloodKind::SourcesCompleting, FloodKind::Bots, FloodKind::BotsPrefix, FloodKind::BotsPrefixV6];
const COOKIE: u32 = 0xc00c_1e55;
const LINK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

#[test]
fn connections_of_a_crowd_complete_and_end_in_time_wait() {
    if !require::root("connections_of_a_crowd_complete_and_end_in_time_wait") {
        return;
    }
    for (kind, family) in floods(&COMPLETING) {
        let network = Network::build().expect("the lab's network");
        let flooded = flood(&network, kind, family, Rate::PerSecond(2000));
        let states = TcpStates::count(&network.router).expect("the table");
        let begun = flooded.offered;
        assert!(begun > 100, "{kind} {family}: {flooded:?}");
        assert!(ratio(flooded.completed, begun) > 0.95, "{kind} {family}: {flooded:?}");
        assert_eq!(flooded.per_source.iter().sum::<u64>(), flooded.completed, "{kind} {family}");
        assert_eq!(states.of(State::TimeWait), flooded.completed, "{kind} {family}: {states:?}");
        assert_eq!(states.assured, flooded.completed, "{kind} {family}: {states:?}");
        assert_eq!(flooded.challenged, 0, "{kind} {family}: nobody challenges");
    }
}

#[test]
fn challenged_connections_complete_with_their_second_syn() {
    if !require::root("challenged_connections_complete_with_their_second_syn") {
        return;
    }
    for (kind, family) in floods(&COMPLETING) {
        let network = Network::build().expect("the lab's network");
        let _peer = network.internet.run(|| object::attach(Program::Pass, ISP)).expect("a peer");
        let _guard = network.router.run(|| object::attach(Program::Challenge, WAN)).expect("it");
        let flooded = flood(&network, kind, family, Rate::PerSecond(1000));
        let begun = flooded.offered - flooded.sent_again;
        assert!(begun > 100, "{kind} {family}: {flooded:?}");
        assert!(ratio(flooded.challenged, begun) > 0.95, "{kind} {family}: {flooded:?}");
        assert_eq!(flooded.completed, flooded.sent_again, "{kind} {family}");
        let states = TcpStates::count(&network.router).expect("the table");
        assert_eq!(states.of(State::TimeWait), flooded.completed, "{kind} {family}: {states:?}");
    }
}

#[test]
fn members_of_a_crowd_fare_alike_where_nothing_is_refused() {
    if !require::root("members_of_a_crowd_fare_alike_where_nothing_is_refused") {
        return;
    }
    let network = Network::build().expect("the lab's network");
    let flooded = flood(&network, FloodKind::BotsPrefix, Family::Ipv4, Rate::PerSecond(10_000));
    let (least, most) = (flooded.per_source.iter().min(), flooded.per_source.iter().max());
    assert_eq!(flooded.per_source.len(), 254);
    assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 1), "{flooded:?}");
}

#[test]
fn held_connections_stay_open_and_each_source_has_its_number() {
    if !require::root("held_connections_stay_open_and_each_source_has_its_number") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let network = Network::build().expect("the lab's network");
        let _server = serve(&network);
        let flood = start(&network, FloodKind::Holders, family, Rate::PerSecond(100_000));
        let all = || Ok((established(&network)? >= 500 * 28).then_some(()));
        wait_for("all connections to be held", all).expect("they are");
        let flooded = flood.stop().expect("the flood ends");
        let states = TcpStates::count(&network.router).expect("the table");
        assert!(flooded.per_source.iter().all(|held| *held == 28), "{family}: {flooded:?}");
        assert_eq!(states.of(State::Established), 500 * 28, "{family}: {states:?}");
        assert_eq!((flooded.completed, states.assured), (0, 500 * 28), "{family}: {flooded:?}");
    }
}

#[test]
fn spoofed_sources_are_answered_through_the_router() {
    if !require::root("spoofed_sources_are_answered_through_the_router") {
        return;
    }
    for kind in [FloodKind::SynAnswered, FloodKind::UdpAnswered] {
        let network = Network::build().expect("the lab's network");
        let _nowhere = network.internet.run(|| object::attach(Program::Nowhere, ISP)).expect("it");
        let flooded = flood(&network, kind, Family::Ipv4, Rate::PerSecond(2000));
        let answers = wan::dropped_in_xdp(&network.internet, ISP).expect("the device's counters");
        assert!(ratio(answers, flooded.offered) > 0.95, "{kind}: {answers} of {flooded:?}");
    }
}

#[test]
fn live_hosts_refuse_what_they_did_not_ask_for() {
    if !require::root("live_hosts_refuse_what_they_did_not_ask_for") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let network = Network::build().expect("the lab's network");
        let flooded = flood(&network, FloodKind::SynLive, family, Rate::PerSecond(2000));
        let states = TcpStates::count(&network.router).expect("the table");
        let entries: u64 = states.by_state.values().sum();
        assert!(states.of(State::Close) > 20, "{family}: {states:?}");
        assert!(ratio(states.of(State::Close), entries) > 0.95, "{family}: {states:?}");
        // Each SYN goes twice, but for those of the end.
        assert!((entries..=2 * entries).contains(&flooded.offered), "{family}: {flooded:?}");
    }
}

#[test]
fn a_challenged_member_resets_and_sends_its_syn_again_once() {
    if !require::root("a_challenged_member_resets_and_sends_its_syn_again_once") {
        return;
    }
    for (kind, family) in floods(&COMPLETING) {
        let route = Route { link: LINK, family, port: CROWD_PORT };
        let mut sampler = Sampler::load(kind, route).expect("the generator");
        let syns = sampler.frames(300).expect("frames");
        for syn in &syns[100..103] {
            let reset = sampler.answer(&answer(syn, COOKIE)).expect("a run").expect("an answer");
            let ((from, to), tcp) = read(&reset);
            let ((client, server), sent) = read(syn);
            assert_eq!((from, to, tcp.source_port), (client, server, sent.source_port));
            assert_eq!((tcp.rst, tcp.ack, tcp.syn, tcp.fin), (true, false, false, false));
            assert_eq!(tcp.sequence_number, COOKIE, "{kind} {family}");
            assert!(sampler.answer(&answer(syn, COOKIE + 1)).expect("a run").is_some());
        }
        sampler.send_again(3).expect("the map");
        let next = sampler.frames(4).expect("frames");
        assert_eq!(next[..3], syns[100..103], "{kind} {family}");
        assert!(!syns.contains(&next[3]), "then new ones follow");
    }
}

#[test]
fn a_crowd_leaves_alone_what_is_for_others() {
    if !require::root("a_crowd_leaves_alone_what_is_for_others") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let route = Route { link: LINK, family, port: CROWD_PORT };
        let mut sampler = Sampler::load(FloodKind::Bots, route).expect("the generator");
        let mut live = Sampler::load(FloodKind::SynLive, route).expect("the generator");
        let syn = &live.frames(1).expect("frames")[0];
        assert_eq!(sampler.answer(&answer(syn, 7)).expect("a run"), None, "{family}");
    }
}

#[test]
fn each_syn_of_live_sources_goes_twice() {
    if !require::root("each_syn_of_live_sources_goes_twice") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let route = Route { link: LINK, family, port: CROWD_PORT };
        let mut sampler = Sampler::load(FloodKind::SynLive, route).expect("the generator");
        let first = sampler.frames(1500).expect("frames");
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), 1500, "{family}");
        sampler.send_again(1500).expect("the map");
        assert_eq!(sampler.frames(1500).expect("frames"), first, "{family}");
    }
}

#[test]
fn an_infected_host_fills_the_table_from_inside() {
    if !require::root("an_infected_host_fills_the_table_from_inside") {
        return;
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let network = Network::build().expect("the lab's network");
        let flooded = flood(&network, FloodKind::LanHost, family, Rate::PerSecond(2000));
        let entries = table::count(&network.router).expect("the table's count");
        assert!(flooded.offered > 100 && ratio(entries, flooded.offered) > 0.95, "{family}");
    }
}

#[test]
fn a_fitful_flood_tells_its_seed() {
    if !require::root("a_fitful_flood_tells_its_seed") {
        return;
    }
    let network = Network::build().expect("the lab's network");
    let flooded = flood(&network, FloodKind::MixedRandom, Family::Ipv4, Rate::PerSecond(2000));
    assert!(flooded.seed.is_some());
}

fn floods(kinds: &[FloodKind]) -> impl Iterator<Item = (FloodKind, Family)> {
    let all =
        kinds.iter().flat_map(|kind| [Family::Ipv4, Family::Ipv6].map(|family| (*kind, family)));
    all.filter(|(kind, family)| check_family(*kind, *family).is_ok())
}

fn established(network: &Network) -> anyhow::Result<u64> {
    Ok(TcpStates::count(&network.router)?.of(State::Established))
}

/// A flood of a second, its server at work. A slow machine takes half of that to verify the generator.
fn flood(network: &Network, kind: FloodKind, family: Family, rate: Rate) -> Flooded {
    let _server = serve(network);
    let flood = start(network, kind, family, rate);
    std::thread::sleep(Duration::from_millis(300));
    let flooded = flood.stop().expect("the flood ends");
    std::thread::sleep(Duration::from_millis(200));
    flooded
}

fn serve(network: &Network) -> object::Attached {
    network.inside.run(|| object::serve_crowd(SERVERS)).expect("the crowd's server")
}

fn start(network: &Network, kind: FloodKind, family: Family, rate: Rate) -> Flood {
    let to = (family, kind.port(false).unwrap_or(80));
    let cpus = Cpus::share_out().expect("CPUs");
    Flood::through(network, kind, rate, to, cpus).expect("the flood starts")
}

/// A bare ACK in answer to a SYN, as a guard makes it.
fn answer(syn: &[u8], cookie: u32) -> Vec<u8> {
    let ((client, server), tcp) = read(syn);
    assert_eq!((tcp.syn, tcp.sequence_number), (true, CLIENT_SEQUENCE));
    let link = PacketBuilder::ethernet2(LINK.1, LINK.0);
    let packet = match (server, client) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        mixed => panic!("two families: {mixed:?}"),
    };
    let mut bytes = Vec::new();
    packet
        .tcp(tcp.destination_port, tcp.source_port, 0x5eed_5eed, 1024)
        .ack(cookie)
        .write(&mut bytes, &[])
        .expect("a frame");
    bytes
}

/// The addresses and the TCP header of a frame whose checksums are right.
fn read(frame: &[u8]) -> ((IpAddr, IpAddr), TcpHeader) {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a well formed frame");
    let Some(TransportHeader::Tcp(tcp)) = headers.transport else { panic!("no TCP") };
    let data = headers.payload.slice();
    let (addresses, checksum) = match headers.net.expect("an IP header") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let checksum = tcp.calc_checksum_ipv4(&ip, data);
            ((ip.source.into(), ip.destination.into()), checksum)
        }
        NetHeaders::Ipv6(ip, _) => {
            let checksum = tcp.calc_checksum_ipv6(&ip, data);
            ((ip.source.into(), ip.destination.into()), checksum)
        }
        other @ NetHeaders::Arp(_) => panic!("no IP: {other:?}"),
    };
    // Both zeroes of one's complement are right.
    assert_eq!(tcp.checksum % u16::MAX, checksum.expect("a short packet") % u16::MAX);
    (addresses, tcp)
}
