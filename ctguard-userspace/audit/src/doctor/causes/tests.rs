use std::net::{IpAddr, Ipv4Addr};

use ctguard_datapath::packet::protocol::{TCP, UDP};

use super::*;
use crate::doctor::finding::Severity;
use ctguard_kernel::conntrack::{Entry, TcpState, Tuple, status};

const ENTRIES: u32 = 10_000;
const ESTABLISHED_SECONDS: u32 = 432_000;
const TABLE: TableNumbers = TableNumbers { count: 10_000, max: 16_384, buckets: 16_384 };
const SERVER: u32 = 0xc633_6401;
const LAN_HOST: u32 = 0x0a00_0007;

/// One entry as a test wants it.
#[derive(Clone, Copy)]
struct Flow {
    protocol: u8,
    from: (u32, u16),
    to: (u32, u16),
    status: u32,
    left: u32,
    state: Option<TcpState>,
}

const ORDINARY: Flow = Flow {
    protocol: TCP,
    from: (0, 40_000),
    to: (SERVER, 443),
    status: status::SEEN_REPLY | status::ASSURED,
    left: ESTABLISHED_SECONDS - 5,
    state: Some(TcpState::Established),
};

fn census(flows: impl Iterator<Item = Flow>) -> Census {
    let mut census = Census::new(vec![ESTABLISHED_SECONDS]);
    for flow in flows {
        let address = |address: u32| IpAddr::from(Ipv4Addr::from(address));
        let tuple = |from: (u32, u16), to: (u32, u16)| Tuple {
            source: address(from.0),
            destination: address(to.0),
            key: u32::from(from.1) << 16 | u32::from(to.1),
        };
        let entry = Entry {
            original: tuple(flow.from, flow.to),
            reply: tuple(flow.to, flow.from),
            protocol: flow.protocol,
            status: flow.status,
            tcp_state: flow.state,
            has_helper: false,
            timeout_seconds: Some(flow.left),
            zone: 0,
        };
        census.note(&entry);
    }
    census
}

fn found(flow: impl Fn(u32) -> Flow) -> Vec<(&'static str, Severity)> {
    let census = census((0..ENTRIES).map(flow));
    let found = judge(&census, TABLE, &Neighbours::new(), &Planned::default());
    found.iter().map(|finding| (finding.check, finding.severity)).collect()
}

/// A third of ordinary flows among those of the test.
fn among_others(number: u32, flow: Flow) -> Flow {
    if number.is_multiple_of(3) {
        Flow { from: (0x0a10_0000 + number, 40_000), ..ORDINARY }
    } else {
        flow
    }
}

fn spread(number: u32) -> u32 {
    0x2000_0000 + number.wrapping_mul(2_654_435_761) % 0x1000_0000
}

#[test]
fn spoofed_syns_are_a_syn_flood() {
    let flow = |number| Flow {
        from: (spread(number), 1024),
        status: 0,
        left: 100,
        state: Some(TcpState::SynSent),
        ..ORDINARY
    };
    assert_eq!(
        found(|number| among_others(number, flow(number))),
        [("syn-flood", Severity::Fault)]
    );
}

/// Fails when the half-closed connections of kube-proxy's hour are told as one source's, or ordinary
/// ones as theirs.
#[test]
fn connections_that_only_one_side_closes_are_told_by_their_state() {
    let flow = |left| Flow {
        from: (LAN_HOST, 40_000),
        left,
        state: Some(TcpState::CloseWait),
        ..ORDINARY
    };
    let told = |left| found(|number| among_others(number, flow(left)));
    assert_eq!(told(3000), [("close-wait", Severity::Fault)]);
    assert_eq!(told(50), [("one-source", Severity::Warning)]);
}

/// Fails when forged packets are told as connections that a peer does not close.
#[test]
fn a_flood_that_reaches_close_wait_without_a_reply_is_a_flood() {
    let flow = |number| Flow {
        from: (spread(number), 1024),
        status: 0,
        left: 3000,
        state: Some(TcpState::CloseWait),
        ..ORDINARY
    };
    assert_eq!(
        found(|number| among_others(number, flow(number))),
        [("syn-flood", Severity::Fault)]
    );
}

/// Fails when a timeout is to be set to what it is.
#[test]
fn a_timeout_of_half_closed_connections_is_lowered_only_where_it_is_longer() {
    let flow = |number| Flow {
        from: (spread(number), 1),
        left: 3000,
        state: Some(TcpState::CloseWait),
        ..ORDINARY
    };
    let told = |close_wait| {
        let mut census = census((0..ENTRIES).map(flow));
        census.close_wait = close_wait;
        let found = judge(&census, TABLE, &Neighbours::new(), &Planned::default());
        assert_eq!(found[0].check, "close-wait");
        (found[0].mend.len(), found[0].why.contains("ends by itself"))
    };
    assert_eq!(told(Some(3600)), (1, false));
    assert_eq!([told(Some(60)), told(Some(10)), told(None)], [(0, true); 3]);
}

/// Fails when one host with many addresses, each below any limit, is told as the whole world.
#[test]
fn sources_of_one_network_are_told_by_it() {
    let flow = |number: u32| Flow {
        protocol: UDP,
        from: (0xc000_0200 + number % 200, u16::try_from(number).unwrap()),
        to: (SERVER, 4500),
        status: 0,
        left: 20,
        state: None,
    };
    let told = |flow: &dyn Fn(u32) -> Flow| {
        let found =
            judge(&census((0..ENTRIES).map(flow)), TABLE, &Neighbours::new(), &Planned::default());
        assert_eq!(found[0].check, "udp-flood");
        found[0].read.iter().find(|read| read.place == "from").map(|read| read.value.clone())
    };
    assert_eq!(told(&flow).unwrap(), "192.0.2.0/24 (10000 entries)");
    assert_eq!(told(&|number| Flow { from: (spread(number), 1), ..flow(number) }), None);
}

#[test]
fn spoofed_datagrams_are_a_udp_flood() {
    let flow = |number| Flow {
        protocol: UDP,
        from: (spread(number), 1024),
        to: (SERVER, 4500),
        status: 0,
        left: 20,
        state: None,
    };
    assert_eq!(
        found(|number| among_others(number, flow(number))),
        [("udp-flood", Severity::Fault)]
    );
}

#[test]
fn one_host_that_asks_many_others_scans() {
    let flow = |number| Flow {
        from: (LAN_HOST, 1024),
        to: (spread(number), 445),
        status: 0,
        left: 100,
        state: Some(TcpState::SynSent),
        ..ORDINARY
    };
    assert_eq!(found(|number| among_others(number, flow(number))), [("scan", Severity::Fault)]);
}

#[test]
fn one_host_that_asks_one_service_floods_it() {
    let flow = |number: u32| Flow {
        from: (LAN_HOST, u16::try_from(number).unwrap()),
        status: 0,
        left: 100,
        state: Some(TcpState::SynSent),
        ..ORDINARY
    };
    assert_eq!(
        found(|number| among_others(number, flow(number))),
        [("syn-flood", Severity::Fault)]
    );
}

#[test]
fn one_host_that_resolves_in_a_loop_is_named() {
    let flow = |number: u32| Flow {
        protocol: UDP,
        from: (LAN_HOST, u16::try_from(number).unwrap()),
        to: (SERVER, 53),
        status: status::SEEN_REPLY,
        left: 20,
        state: None,
    };
    let census = census((0..ENTRIES).map(|number| among_others(number, flow(number))));
    let printer = (IpAddr::from(Ipv4Addr::from(LAN_HOST)), "printer".to_owned());
    let found = judge(&census, TABLE, &Neighbours::from([printer]), &Planned::default());
    assert_eq!(found[0].check, "dns-loop");
    assert!(found[0].what.contains("10.0.0.7 (printer) hold 66 %"), "{}", found[0].what);
}

#[test]
fn connections_that_nobody_closed_are_told_by_their_age() {
    let flow = |number| Flow {
        from: (spread(number), 40_000),
        left: ESTABLISHED_SECONDS - 7200,
        ..ORDINARY
    };
    assert_eq!(
        found(|number| among_others(number, flow(number))),
        [("idle-connections", Severity::Fault)]
    );
}

/// Fails when the table of a busy day is called an attack.
#[test]
fn a_table_of_ordinary_flows_has_no_cause() {
    assert_eq!(found(|number| Flow { from: (spread(number), 40_000), ..ORDINARY }), []);
    let roomy = TableNumbers { max: 262_144, ..TABLE };
    let flood = |number| Flow {
        from: (spread(number), 1),
        status: 0,
        state: Some(TcpState::SynSent),
        left: 9,
        ..ORDINARY
    };
    assert!(
        judge(&census((0..ENTRIES).map(flood)), roomy, &Neighbours::new(), &Planned::default())
            .is_empty()
    );
}

#[test]
fn nat_ports_that_run_out_towards_one_remote_are_found_in_a_roomy_table() {
    let flow = |number: u32| Flow {
        from: (0xcb00_7101, u16::try_from(1024 + number).unwrap()),
        status: status::SEEN_REPLY | status::ASSURED | status::SOURCE_NAT,
        ..ORDINARY
    };
    let roomy = TableNumbers { count: 62_000, max: 262_144, buckets: 262_144 };
    let found =
        |many| judge(&census((0..many).map(flow)), roomy, &Neighbours::new(), &Planned::default());
    assert!(found(51_000).is_empty());
    assert_eq!(found(52_000)[0].check, "nat-ports");
    assert_eq!(found(62_000)[0].severity, Severity::Fault);
    assert!(found(62_000)[0].what.contains("198.51.100.1 port 443 (TCP)"), "{:?}", found(62_000));
}

#[test]
fn entries_that_outlive_a_lowered_timeout_are_noted() {
    let flow =
        |number| Flow { from: (spread(number), 1), left: ESTABLISHED_SECONDS + 9, ..ORDINARY };
    assert_eq!(found(flow), [("old-deadlines", Severity::Note)]);
}
