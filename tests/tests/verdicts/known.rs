//! Flows that conntrack knows, and packets that make no entry.

use anyhow::Result;
use ctguard_layout::{Class, Counter, Outcome};
use ctguard_tests::{frames::flags, require};

use crate::{
    packets::{self, LOCAL, LOCAL6, REMOTE, REMOTE6},
    row::{self, Row, drops, passes},
};
use Counter::{Flows, Packets, Wakeups};
use Outcome::{Admitted, ChallengedByAck, Known, MakesNoEntry, RefusedGrant, Repeated};

const NEW_TCP: [Counter; 1] = [Flows(Admitted, Class::Tcp)];
const REFUSED: [Counter; 2] = [Flows(RefusedGrant, Class::Tcp), Wakeups];
const ASKED: [Counter; 2] = [Flows(ChallengedByAck, Class::Tcp), Wakeups];
const NEW_UDP: [Counter; 1] = [Flows(Admitted, Class::Udp)];
const NEW_OTHER: [Counter; 1] = [Flows(Admitted, Class::Other)];
const SYN_ACK: u8 = flags::SYN | flags::ACK;
const FIN_ACK: u8 = flags::FIN | flags::ACK;
const RST_ACK: u8 = flags::RST | flags::ACK;
const GRE: u8 = 47;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Fails when an answer to a flow from inside, or a packet of an admitted flow, is charged or
/// dropped, or when a packet of no known flow passes for a known one.
#[test]
fn known_flows_pass_uncharged_and_unknown_ones_do_not() -> Result<()> {
    if !require::root("known_flows_pass_uncharged_and_unknown_ones_do_not") {
        return Ok(());
    }
    row::check(&rows())
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = tcp();
    rows.extend(answers());
    rows.extend(without_entry());
    rows
}

fn tcp() -> Vec<Row> {
    let arrives = |flags| packets::tcp(REMOTE, LOCAL, 7, flags);
    let leaves = |flags| packets::tcp_back(LOCAL, REMOTE, 7, flags);
    vec![
        passes("a SYN sent again", packets::syn(7), &[Packets(Repeated)])
            .after_arrival_of(packets::syn(7)),
        passes("a SYN sent again much later", packets::syn(7), &NEW_TCP)
            .after_arrival_of(packets::syn(7))
            .long_after(),
        drops(
            "a SYN on a live connection, the grant spent",
            packets::syn(7),
            &[Flows(RefusedGrant, Class::Tcp), Wakeups],
        )
        .after_arrival_of(packets::syn(7))
        .after_departure_of(leaves(flags::ACK))
        .without_any_grant(),
        passes("an ACK of an admitted connection", arrives(flags::ACK), &[Packets(Known)])
            .after_arrival_of(packets::syn(7)),
        passes("an ACK of a connection long ended", arrives(flags::ACK), &NEW_TCP)
            .after_arrival_of(packets::syn(7))
            .long_after(),
        passes("an ACK of no connection", arrives(flags::ACK), &NEW_TCP),
        passes("the same, tcp_loose off", arrives(flags::ACK), &[Packets(MakesNoEntry)])
            .where_environment(|environment| environment.daemon.tcp_loose = 0),
        passes("an ACK to an answered SYN, tcp_loose off", arrives(flags::ACK), &[Packets(Known)])
            .where_environment(|environment| environment.daemon.tcp_loose = 0)
            .after_arrival_of(packets::syn(7))
            .after_departure_of(data_back()),
        drops(
            "an ACK to a SYN that nobody answered, the grant spent",
            arrives(flags::ACK),
            &REFUSED,
        )
        .after_arrival_of(packets::syn(7))
        .without_grant(),
        passes(
            "an ACK to an answered SYN, the grant spent",
            arrives(flags::ACK),
            &[Packets(Known)],
        )
        .after_arrival_of(packets::syn(7))
        .after_departure_of(data_back())
        .without_grant(),
        drops("a SYN sent again, the grant spent", packets::syn(7), &REFUSED)
            .after_arrival_of(packets::syn(7))
            .without_any_grant(),
        passes("a SYN sent again, that of strangers spent", packets::syn(7), &[Packets(Repeated)])
            .after_arrival_of(packets::syn(7))
            .without_grant(),
        passes("a connection older than the maps", arrives(flags::ACK), &[Packets(Known)])
            .where_environment(|environment| environment.daemon.learning_until = u64::MAX)
            .without_grant(),
        row::answers("a SYN while connections are learnt", packets::syn(7), &ASKED)
            .where_environment(|environment| environment.daemon.learning_until = u64::MAX)
            .without_grant(),
        passes("a FIN of a connection", arrives(FIN_ACK), &[Packets(Known)])
            .after_arrival_of(packets::syn(7)),
        passes("a RST of a connection", arrives(flags::RST), &[Packets(Known)])
            .after_arrival_of(packets::syn(7)),
        passes("an ACK from another port", packets::tcp(REMOTE, LOCAL, 8, flags::ACK), &NEW_TCP)
            .after_arrival_of(packets::syn(7)),
    ]
}

fn answers() -> Vec<Row> {
    let syn_ack = packets::tcp_back(REMOTE, LOCAL, 9, SYN_ACK);
    vec![
        passes("a SYN-ACK to a SYN from inside", syn_ack.clone(), &[Packets(Known)])
            .without_grant()
            .after_departure_of(packets::tcp(LOCAL, REMOTE, 9, flags::SYN)),
        passes(
            "the same over IPv6",
            packets::tcp_back(REMOTE6, LOCAL6, 9, SYN_ACK),
            &[Packets(Known)],
        )
        .without_grant()
        .after_departure_of(packets::tcp(LOCAL6, REMOTE6, 9, flags::SYN)),
        passes(
            "UDP to a question from inside",
            packets::udp_to(REMOTE, LOCAL, 53, 4000),
            &[Packets(Known)],
        )
        .without_grant()
        .after_departure_of(packets::udp_to(LOCAL, REMOTE, 4000, 53)),
        passes(
            "the same, tagged",
            vlan(&packets::udp_to(REMOTE, LOCAL, 53, 4000)),
            &[Packets(Known)],
        )
        .without_grant()
        .after_departure_of(packets::udp_to(LOCAL, REMOTE, 4000, 53)),
        passes("UDP to another port", packets::udp_to(REMOTE, LOCAL, 53, 4001), &NEW_UDP)
            .after_departure_of(packets::udp_to(LOCAL, REMOTE, 4000, 53)),
        passes("UDP from another host", packets::udp_to("192.0.2.2", LOCAL, 53, 4000), &NEW_UDP)
            .after_departure_of(packets::udp_to(LOCAL, REMOTE, 4000, 53)),
        passes("UDP after its timeout", packets::udp_to(REMOTE, LOCAL, 53, 4000), &NEW_UDP)
            .after_departure_of(packets::udp_to(LOCAL, REMOTE, 4000, 53))
            .long_after(),
        passes("GRE to GRE from inside", gre(REMOTE, LOCAL), &[Packets(Known)])
            .without_grant()
            .after_departure_of(gre(LOCAL, REMOTE)),
        passes("SCTP to SCTP from inside", sctp(REMOTE, LOCAL, 3, 5), &[Packets(Known)])
            .without_grant()
            .after_departure_of(sctp(LOCAL, REMOTE, 5, 3)),
        passes("UDP-Lite from another port", udp_lite(REMOTE, LOCAL, 4, 5), &NEW_OTHER)
            .after_departure_of(udp_lite(LOCAL, REMOTE, 5, 3)),
        passes("the same, known by addresses", udp_lite(REMOTE, LOCAL, 4, 5), &[Packets(Known)])
            .where_environment(|environment| environment.daemon.set_without_ports(&[UDPLITE]))
            .without_grant()
            .after_departure_of(udp_lite(LOCAL, REMOTE, 5, 3)),
        passes("a SYN-ACK to a RST from inside", syn_ack.clone(), &[Packets(MakesNoEntry)])
            .after_departure_of(packets::tcp(LOCAL, REMOTE, 9, RST_ACK)),
        passes(
            "an echo request to ICMP from inside",
            packets::icmp(REMOTE, LOCAL, 8, 1),
            &NEW_OTHER,
        )
        .after_departure_of(packets::icmp(LOCAL, REMOTE, 8, 1)),
        passes("an echo request again", packets::icmp(REMOTE, LOCAL, 8, 1), &[Packets(Known)])
            .after_arrival_of(packets::icmp(REMOTE, LOCAL, 8, 1)),
    ]
}

fn without_entry() -> Vec<Row> {
    let mut rows = Vec::new();
    for flags in [flags::RST, RST_ACK, FIN_ACK, flags::FIN, SYN_ACK, 0] {
        let segment = packets::tcp(REMOTE, LOCAL, 7, flags);
        rows.push(
            passes("RST, FIN, SYN-ACK, nothing", segment, &[Packets(MakesNoEntry)]).without_grant(),
        );
    }
    for kind in [8, 13, 15, 17] {
        rows.push(passes("an ICMP request", packets::icmp(REMOTE, LOCAL, kind, 1), &NEW_OTHER));
    }
    for kind in [0, 3, 4, 5, 9, 11, 12, 14, 16, 18] {
        let message = packets::icmp(REMOTE, LOCAL, kind, 1);
        rows.push(
            passes("an ICMP answer or error", message, &[Packets(MakesNoEntry)]).without_grant(),
        );
    }
    for kind in [128, 139] {
        rows.push(passes("an ICMPv6 request", packets::icmp(REMOTE6, LOCAL6, kind, 1), &NEW_OTHER));
    }
    for kind in [1, 2, 3, 4, 129, 140] {
        let message = packets::icmp(REMOTE6, LOCAL6, kind, 1);
        rows.push(
            passes("an ICMPv6 answer or error", message, &[Packets(MakesNoEntry)]).without_grant(),
        );
    }
    rows
}

fn vlan(frame: &[u8]) -> Vec<u8> {
    packets::tagged(frame, &[0x8100])
}

/// Data from inside, which a host sends only for connections that it has.
fn data_back() -> Vec<u8> {
    ctguard_tests::frames::tcp_data((packets::ip(LOCAL), 80), (packets::ip(REMOTE), 7))
        .expect("one family")
}

/// PPTP's GRE, version 1, has a key in which conntrack finds the call.
fn gre(from: &str, to: &str) -> Vec<u8> {
    packets::ipv4(from, to, GRE, 0, &[0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 0, 0, 0, 0, 1])
}

fn sctp(from: &str, to: &str, port: u8, to_port: u8) -> Vec<u8> {
    packets::ipv4(from, to, SCTP, 0, &[0, port, 0, to_port, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn udp_lite(from: &str, to: &str, port: u8, to_port: u8) -> Vec<u8> {
    packets::ipv4(from, to, UDPLITE, 0, &[0, port, 0, to_port, 0, 8, 0, 0])
}
