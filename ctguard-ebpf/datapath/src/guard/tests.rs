//! What becomes of packets, told as an operator would: the whole order, over maps on the host.

mod challenge;
mod exact;
mod lab;
mod limits;
mod plain;
mod unsteered;

use std::vec::Vec;

use super::*;
use crate::{
    layout::{FlowLine, Policy, STATIONS},
    units::Ticks,
};
use lab::{
    BURST, JIFFIES_PER_SECOND, LOCAL, Lab, REMOTE, START, data, echo, is_refused, syn, tcp, udp,
};

#[test]
fn one_source_gets_its_burst_and_then_its_rate() {
    let lab = Lab::new();
    let admitted = Lab::admitted_of(100, |port| lab.syn(REMOTE, port));
    assert_eq!(admitted, BURST);

    lab.pass_seconds(2);
    let admitted = Lab::admitted_of(100, |port| lab.syn(REMOTE, 1000 + port));
    assert_eq!(admitted, BURST, "two seconds refill more than a burst, and a burst is all");
}

#[test]
fn a_flood_from_one_source_costs_others_nothing() {
    let lab = Lab::new();
    Lab::admitted_of(1000, |port| lab.syn(REMOTE, port));
    assert_eq!(lab.syn("192.0.2.2", 1), (Outcome::Admitted, Class::Tcp, Tier::Strangers));
}

#[test]
fn sources_of_one_ipv6_subnet_share_a_bucket() {
    let lab = Lab::new();
    let admitted = Lab::admitted_of(100, |host| lab.udp6(&format!("2001:db8:0:1::{host:x}"), 1));
    assert_eq!(admitted, BURST);
    assert!(lab.udp6("2001:db8:0:2::1", 1) == Outcome::Admitted);
}

#[test]
fn nothing_is_admitted_beyond_the_grant_and_its_end_wakes_the_daemon_once_a_jiffy() {
    let lab = Lab::new();
    lab.grant.allowances[0].limit.store(5);
    lab.grant.allowances[0].wake_at.store(3);
    let judgements: Vec<Judgement> =
        (0..8).map(|host| lab.judge(&udp(&format!("192.0.2.{host}"), LOCAL, 1, 53))).collect();
    let outcomes: Vec<bool> =
        judgements.iter().map(|judged| *judged == Outcome::Admitted).collect();
    assert_eq!(outcomes, [true, true, true, true, true, false, false, false]);
    let wakes: Vec<bool> = judgements.iter().map(|judged| judged.wakes()).collect();
    assert_eq!(wakes, [false, false, false, true, false, true, false, false]);
    assert_eq!(judgements[7], (Outcome::RefusedGrant, Class::Udp));
}

#[test]
fn a_flow_that_the_grant_refuses_charges_its_source_nothing() {
    let lab = Lab::new();
    lab.grant.allowances[0].limit.store(0);
    Lab::admitted_of(100, |port| lab.syn(REMOTE, port));
    lab.grant.allowances[0].limit.store(1_000_000);
    assert_eq!(Lab::admitted_of(100, |port| lab.syn(REMOTE, port)), BURST);
}

#[test]
fn without_a_daemon_the_fallback_rate_holds_for_the_whole_table() {
    let lab = Lab::new();
    lab.grant.heartbeat.store(START.0 - 2 * JIFFIES_PER_SECOND - 1);
    lab.grant.fallback[0].interval.store(10 * Ticks::PER_JIFFY);
    lab.grant.fallback[0].tolerance.store(4 * 10 * Ticks::PER_JIFFY);
    let spoofed = |host: u32| lab.syn(&format!("10.0.{}.{}", host / 256, host % 256), 1);
    assert_eq!(Lab::admitted_of(100, spoofed), 5);
    assert_eq!(spoofed(2000), (Outcome::ChallengedByAck, Class::Tcp));
    assert_eq!(lab.udp(REMOTE, 1), (Outcome::RefusedFallback, Class::Udp));

    lab.pass_seconds(1);
    let in_a_second: u32 = (0..10)
        .map(|round| {
            lab.pass(100);
            Lab::admitted_of(100, |host| spoofed(3000 + round * 100 + host))
        })
        .sum();
    assert_eq!(in_a_second, 50, "each 100 jiffies refill more than the burst of 5");
}

#[test]
fn fail_open_lifts_the_fallback_rate_but_not_the_ceilings() {
    let mut lab = Lab::new();
    lab.grant.heartbeat.store(0);
    lab.policy.switches = Policy::FAIL_OPEN;
    assert_eq!(Lab::admitted_of(100, |port| lab.syn(REMOTE, port)), BURST);
}

#[test]
fn a_syn_sent_again_is_not_charged_again_for_three_seconds() {
    let lab = Lab::new();
    assert!(lab.syn(REMOTE, 1) == Outcome::Admitted);
    for _ in 0..3 {
        lab.pass_seconds(1);
        assert_eq!(lab.syn(REMOTE, 1), Outcome::Repeated);
    }
    lab.pass_seconds(2);
    assert!(lab.syn(REMOTE, 1) == Outcome::Admitted);
}

#[test]
fn an_ack_of_an_admitted_connection_is_known() {
    let lab = Lab::new();
    lab.syn(REMOTE, 1);
    assert_eq!(lab.tcp(REMOTE, 1, TcpFlags::ACK), Outcome::Known);
}

#[test]
fn acks_of_no_connection_are_charged_while_tcp_loose_is_on() {
    let mut lab = Lab::new();
    assert_eq!(Lab::admitted_of(100, |port| lab.tcp(REMOTE, port, TcpFlags::ACK)), BURST);

    lab.environment.daemon.tcp_loose = 0;
    assert_eq!(lab.tcp(REMOTE, 5000, TcpFlags::ACK), Outcome::MakesNoEntry);
}

#[test]
fn rst_fin_and_syn_ack_of_no_connection_pass_uncharged() {
    let lab = Lab::new();
    for flags in [TcpFlags::RST, TcpFlags::FIN | TcpFlags::ACK, TcpFlags::SYN | TcpFlags::ACK] {
        for port in 0..100 {
            assert_eq!(lab.tcp(REMOTE, port, flags), Outcome::MakesNoEntry);
        }
    }
}

#[test]
fn answers_to_flows_opened_from_inside_always_pass() {
    let lab = Lab::new();
    Lab::admitted_of(1000, |port| lab.udp(REMOTE, port));
    lab.leave(&udp(LOCAL, REMOTE, 4000, 53));
    assert_eq!(lab.judge(&udp(REMOTE, LOCAL, 53, 4000)), Outcome::Known);
    let unasked = lab.judge(&udp(REMOTE, LOCAL, 53, 4001));
    assert_eq!(unasked, (Outcome::RefusedSource, Class::Udp));
}

#[test]
fn a_known_udp_flow_ends_with_conntracks_timeout() {
    let lab = Lab::new();
    lab.udp(REMOTE, 7);
    lab.pass_seconds(29);
    assert_eq!(lab.udp(REMOTE, 7), Outcome::Known);
    lab.pass_seconds(32);
    assert!(lab.udp(REMOTE, 7) == Outcome::Admitted);
}

#[test]
fn a_connection_is_established_only_when_the_inside_has_sent_data() {
    let lab = Lab::new();
    lab.syn(REMOTE, 1);
    lab.leave(&tcp(LOCAL, REMOTE, 80, 1, TcpFlags::SYN | TcpFlags::ACK));
    lab.tcp(REMOTE, 1, TcpFlags::ACK);
    lab.leave(&tcp(LOCAL, REMOTE, 80, 1, TcpFlags::ACK));
    lab.pass_seconds(70);
    let blind = lab.tcp(REMOTE, 1, TcpFlags::ACK);
    assert!(blind == Outcome::Admitted, "a host answers a forged SYN with a bare ACK");

    lab.syn(REMOTE, 2);
    lab.leave(&data(LOCAL, REMOTE, 80, 2));
    lab.pass_seconds(250);
    assert_eq!(lab.tcp(REMOTE, 2, TcpFlags::ACK), Outcome::Known);
    lab.pass_seconds(250);
    assert_eq!(lab.tcp(REMOTE, 2, TcpFlags::ACK), Outcome::Known, "prolonged by what arrives");
}

#[test]
fn what_arrives_does_not_prolong_a_flow_that_nobody_answered() {
    let lab = Lab::new();
    lab.udp(REMOTE, 7);
    for _ in 0..3 {
        lab.pass_seconds(9);
        assert_eq!(lab.udp(REMOTE, 7), Outcome::Known);
    }
    lab.pass_seconds(9);
    assert!(lab.udp(REMOTE, 7) == Outcome::Admitted);
}

#[test]
fn packets_of_a_flow_that_nobody_answered_take_from_the_grant_and_not_from_their_source() {
    let lab = Lab::new();
    let admitted = || lab.grant.admitted[0].0.load();
    lab.udp(REMOTE, 7);
    for _ in 0..100 {
        assert_eq!(lab.udp(REMOTE, 7), Outcome::Known);
    }
    assert_eq!(admitted(), 101, "each of them may be the first that conntrack sees");

    lab.leave(&udp(LOCAL, REMOTE, 9, 7));
    assert_eq!(lab.udp(REMOTE, 7), Outcome::Known);
    assert_eq!(admitted(), 101);

    lab.udp(REMOTE, 8);
    lab.grant.allowances[0].limit.store(0);
    assert_eq!(lab.udp(REMOTE, 8), (Outcome::RefusedGrant, Class::Udp));
    assert_eq!(lab.udp(REMOTE, 7), Outcome::Known, "the inside has answered it");
}

#[test]
fn a_reset_from_inside_ends_a_flow_and_makes_none() {
    let lab = Lab::new();
    lab.syn(REMOTE, 2);
    lab.leave(&data(LOCAL, REMOTE, 80, 2));
    lab.leave(&tcp(LOCAL, REMOTE, 80, 2, TcpFlags::RST));
    lab.leave(&tcp(LOCAL, REMOTE, 80, 3, TcpFlags::RST));
    lab.pass_seconds(12);
    for port in [2, 3] {
        let ack = lab.tcp(REMOTE, port, TcpFlags::ACK);
        assert!(ack == Outcome::Admitted, "port {port}");
    }
}

#[test]
fn a_syn_of_a_live_connection_does_not_unsettle_it() {
    let lab = Lab::new();
    lab.syn(REMOTE, 2);
    lab.leave(&data(LOCAL, REMOTE, 80, 2));
    lab.syn(REMOTE, 2);
    lab.pass_seconds(250);
    assert_eq!(lab.tcp(REMOTE, 2, TcpFlags::ACK), Outcome::Known);
}

#[test]
fn connections_older_than_the_guard_are_learnt_at_its_start() {
    let mut lab = Lab::new();
    lab.environment.daemon.learning_until = START.0 + 5000;
    lab.grant.allowances[0].limit.store(0);
    assert_eq!(lab.tcp(REMOTE, 1, TcpFlags::ACK), Outcome::Known);
    assert!(is_refused(lab.udp(REMOTE, 2)));
    lab.pass_seconds(6);
    assert_eq!(lab.tcp(REMOTE, 1, TcpFlags::ACK), Outcome::Known);
    assert!(is_refused(lab.tcp(REMOTE, 3, TcpFlags::ACK)));
}

#[test]
fn each_code_of_an_icmp_request_is_a_flow_of_its_own() {
    let lab = Lab::new();
    let admitted = Lab::admitted_of(256, |code| {
        let mut frame = echo(REMOTE, LOCAL);
        frame[35] = u8::try_from(code).unwrap();
        lab.judge(&frame)
    });
    assert_eq!(admitted, BURST);
}

#[test]
fn on_an_interface_without_a_slot_the_grant_still_holds() {
    let mut lab = Lab::new();
    lab.unknown_interface = true;
    lab.grant.allowances[0].limit.store(5);
    let outcomes = (0..8).map(|port| lab.syn(REMOTE, port)).collect::<Vec<_>>();
    assert_eq!(outcomes[..5], [Outcome::UnknownInterface; 5]);
    assert_eq!(outcomes[5..], [(Outcome::RefusedGrant, Class::Tcp); 3]);
}

#[test]
fn a_closed_connection_is_forgotten_soon() {
    let lab = Lab::new();
    lab.syn(REMOTE, 2);
    lab.leave(&data(LOCAL, REMOTE, 80, 2));
    assert_eq!(lab.tcp(REMOTE, 2, TcpFlags::RST), Outcome::Known);
    lab.pass_seconds(12);
    assert!(lab.tcp(REMOTE, 2, TcpFlags::ACK) == Outcome::Admitted);
}

#[test]
fn a_denied_source_gets_nothing_through_until_its_entry_ends() {
    let mut lab = Lab::new();
    lab.syn(REMOTE, 1);
    lab.list(List::DenyV4, REMOTE, START.0 + 5000);
    assert_eq!(lab.tcp(REMOTE, 1, TcpFlags::ACK), (Outcome::Denied, Class::Tcp));
    lab.pass_seconds(6);
    assert_eq!(lab.tcp(REMOTE, 1, TcpFlags::ACK), Outcome::Known);
}

#[test]
fn the_operator_goes_before_a_feed_and_a_feed_that_allows_before_one_that_denies() {
    let is_denied = |lists: &[List]| {
        let mut lab = Lab::new();
        for list in lists {
            lab.list(*list, REMOTE, 0);
        }
        lab.grant.allowances[1].limit.store(1);
        let is_denied = lab.syn(REMOTE, 1) == (Outcome::Denied, Class::Tcp);
        assert_eq!(lab.grant.admitted[1].0.load(), u64::from(!is_denied), "{lists:?}");
        is_denied
    };
    assert!(is_denied(&[List::FeedDenyV4]));
    assert!(!is_denied(&[List::FeedDenyV4, List::AllowV4]));
    assert!(!is_denied(&[List::FeedDenyV4, List::FeedAllowV4]));
    assert!(is_denied(&[List::DenyV4, List::FeedAllowV4]));
    assert!(is_denied(&[List::DenyV4, List::AllowV4]));
}

#[test]
fn a_judgement_tells_whether_a_source_is_denied_and_of_which_family() {
    let mut lab = Lab::new();
    lab.list(List::DenyV4, REMOTE, 0);
    lab.list(List::FeedDenyV6, "2001:db8::1", 0);
    let told = |judged: Judgement| (judged.is_denied(), judged.is_denied_ipv4());
    assert_eq!(told(lab.syn(REMOTE, 1)), (true, true));
    assert_eq!(told(lab.udp6("2001:db8::1", 1)), (true, false));
    assert_eq!(told(lab.syn("192.0.2.2", 1)), (false, false));
    assert_eq!(told(lab.tcp("192.0.2.2", 2, TcpFlags::RST)), (false, false));
}

#[test]
fn an_allowed_source_has_no_ceiling_but_a_grant_of_its_own() {
    let mut lab = Lab::new();
    lab.list(List::AllowV4, REMOTE, 0);
    lab.grant.allowances[0].limit.store(0);
    lab.grant.allowances[1].limit.store(50);
    assert_eq!(Lab::admitted_of(100, |port| lab.syn(REMOTE, port)), 50);
    assert_eq!(lab.grant.admitted[0].0.load(), 0);
    assert_eq!(lab.grant.admitted[1].0.load(), 50);
}

/// A datagram with ports that a DHCP server uses, to all hosts of the link.
fn offer(lab: &Lab, host: u32) -> Judgement {
    let server = format!("10.0.{}.{}", host / 256, host % 256);
    lab.judge(&udp(&server, "255.255.255.255", 67, 68))
}

/// Fails when a neighbour fills the table with packets that pass although all grants are spent.
#[test]
fn exempt_flows_have_a_bucket_of_their_own_and_beyond_it_are_like_any_other() {
    let lab = Lab::new();
    lab.grant.allowances[0].limit.store(3);
    let interval = 10 * JIFFIES_PER_SECOND * Ticks::PER_JIFFY;
    lab.grant.exempt.interval.store(interval);
    lab.grant.exempt.tolerance.store(15 * interval);
    let outcomes: Vec<Judgement> = (0..1000).map(|host| offer(&lab, host)).collect();
    assert_eq!(outcomes[..16], [Outcome::Exempt; 16]);
    assert_eq!(outcomes[16..19], [Outcome::Admitted; 3]);
    assert_eq!(outcomes[19..], [(Outcome::RefusedGrant, Class::Udp); 981]);
    assert_eq!(offer(&lab, 0), Outcome::Exempt, "its entry was paid for");
    lab.pass_seconds(10);
    assert_eq!(offer(&lab, 2000), Outcome::Exempt);
    assert_eq!(offer(&lab, 2001), (Outcome::RefusedGrant, Class::Udp));
}

/// Fails when a neighbour keeps the hosts of its link from an address.
#[test]
fn dhcp_works_during_a_flood_of_what_looks_exempt() {
    let lab = Lab::new();
    lab.grant.allowances[0].limit.store(0);
    let interval = 10 * JIFFIES_PER_SECOND * Ticks::PER_JIFFY;
    lab.grant.exempt.interval.store(interval);
    for port in 1000..2000 {
        assert_eq!(lab.judge(&udp(REMOTE, "224.0.0.9", port, 520)), Outcome::RefusedGrant);
    }
    assert_eq!(offer(&lab, 1), Outcome::Exempt, "nothing has spent the bucket");
    assert_eq!(offer(&lab, 2), Outcome::RefusedGrant);
    assert_eq!(offer(&lab, 1), Outcome::Exempt);
    assert_eq!(lab.judge(&udp("0.0.0.0", "255.255.255.255", 68, 67)), Outcome::Exempt);
}

#[test]
fn chains_and_tags_longer_than_are_read_are_charged_as_other() {
    let lab = Lab::new();
    let mut tagged = [2; 12].to_vec();
    tagged.extend([0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]);
    tagged.resize(100, 0);
    let admitted = Lab::admitted_of(100, |_| lab.judge(&tagged));
    assert_eq!(admitted, BURST);
}

#[test]
fn frames_for_stations_that_are_not_tracked_are_left_alone() {
    const OTHER: u64 = 0x0202_0202_0202;
    const OURS: u64 = 0x0404_0404_0404;
    let mut lab = Lab::new();
    lab.environment.daemon.stations_in_use = 1;
    lab.interface.stations = [OTHER; STATIONS];
    let frame = syn(REMOTE, LOCAL, 1);
    assert_eq!(lab.judge(&frame), Outcome::NotOurs);
    for place in 0..STATIONS {
        lab.interface.stations = [OTHER; STATIONS];
        lab.interface.stations[place] = OURS;
        let frame = syn(REMOTE, LOCAL, 2 + u32::try_from(place).unwrap());
        assert_eq!(lab.judge(&frame), Outcome::Admitted, "place {place}");
    }
}

/// Fails when what a source did while it had a share holds it back once it has none.
#[test]
fn without_ceiling_and_share_cells_limit_nobody() {
    let mut lab = Lab::new();
    lab.lift_ceilings();
    for line in &lab.buckets {
        line.arrivals.iter().for_each(|arrival| arrival.store(u64::MAX / 4));
    }
    assert_eq!(Lab::admitted_of(1000, |port| lab.udp(REMOTE, port)), 1000);
}

#[test]
fn half_as_many_flows_as_slots_are_all_remembered() {
    let mut lab = Lab::new();
    lab.lift_ceilings();
    let flows = lab.flows.len() * FlowLine::SLOTS / 2;
    let ports = u32::try_from(flows).unwrap();
    for port in 0..ports {
        lab.udp(REMOTE, port);
    }
    let forgotten = (0..ports).filter(|&port| lab.udp(REMOTE, port) != Outcome::Known).count();
    assert_eq!(forgotten, 0, "of {flows}");
}

#[test]
fn offered_load_is_noted_for_sampled_flows_with_its_source() {
    let lab = Lab::new();
    lab.samples.set(true);
    lab.judge(&syn(REMOTE, LOCAL, 1));
    lab.samples.set(false);
    lab.syn("192.0.2.2", 2);
    let noted = lab.offered.borrow();
    let address = u64::from(u32::from_be_bytes([192, 0, 2, 1]));
    assert_eq!(*noted, [Offered { address, family: 4, class: 0, tier: 0 }]);
}
