//! Where conntrack itself is asked.

use super::{
    super::Outcome,
    lab::{BURST, LOCAL, Lab, REMOTE, data, is_refused, udp},
};
use crate::{layout::Policy, packet::TcpFlags};

const SCOPE: u64 = 0xc000_0201;

pub(super) fn exact() -> Lab {
    let mut lab = Lab::new();
    lab.environment.daemon.lookup_options_bytes = 16;
    lab.environment.daemon.known_complete = 1;
    lab
}

fn track(lab: &Lab, from: u32, to: u32) {
    lab.conntrack.borrow_mut().push((SCOPE, from << 16 | to));
}

/// Fails when floods pay for lookups.
#[test]
fn a_tuple_never_noted_is_charged_without_asking() {
    let lab = exact();
    let admitted = Lab::admitted_of(1000, |port| lab.udp(REMOTE, port));
    assert_eq!(admitted, BURST);
    assert_eq!(lab.asked.get(), 0);
}

#[test]
fn while_the_filter_is_not_complete_conntrack_is_asked_of_everything() {
    let mut lab = exact();
    lab.environment.daemon.known_complete = 0;
    track(&lab, 5, 9);
    assert_eq!(lab.udp(REMOTE, 5), Outcome::Known);
    assert!(lab.udp(REMOTE, 6) == Outcome::Admitted);
    track(&lab, 7, 80);
    assert_eq!(lab.syn(REMOTE, 7), Outcome::Repeated);
    assert_eq!(lab.asked.get(), 3);
}

/// Fails when what conntrack has forgotten passes for known: a replay.
#[test]
fn an_answer_is_known_only_while_conntrack_tracks_its_flow() {
    let lab = exact();
    lab.leave(&udp(LOCAL, REMOTE, 9, 5));
    track(&lab, 5, 9);
    assert_eq!(lab.udp(REMOTE, 5), Outcome::Known);
    assert_eq!(lab.udp(REMOTE, 5), Outcome::Known);
    assert_eq!(lab.asked.get(), 1, "once a second");

    lab.pass_seconds(3);
    lab.conntrack.borrow_mut().clear();
    assert!(lab.udp(REMOTE, 5) == Outcome::Admitted);
}

/// Fails when a packet that leaves vouches for its answer though conntrack refused to track it.
#[test]
fn what_leaves_untracked_makes_nothing_known() {
    let lab = exact();
    lab.leave(&udp(LOCAL, REMOTE, 9, 5));
    lab.leave(&data(LOCAL, REMOTE, 80, 4000));
    assert!(lab.udp(REMOTE, 5) == Outcome::Admitted);
    assert!(lab.tcp(REMOTE, 4000, TcpFlags::ACK) == Outcome::Admitted);
    assert_eq!(lab.asked.get(), 2);
}

/// Fails when one tuple that rules drop, so that no entry ever comes of it, passes its ceiling.
#[test]
fn what_follows_a_first_packet_is_charged_until_conntrack_has_its_entry() {
    for judge in [Lab::udp, Lab::syn] {
        let lab = exact();
        assert_eq!(Lab::admitted_of(100, |_| judge(&lab, REMOTE, 5)), BURST);
    }
}

#[test]
fn a_syn_of_a_tracked_flow_makes_no_entry_and_is_not_charged() {
    let lab = exact();
    assert!(lab.syn(REMOTE, 5) == Outcome::Admitted);
    track(&lab, 5, 80);
    assert_eq!(lab.syn(REMOTE, 5), Outcome::Repeated);
    assert_eq!(lab.grant.admitted[0].0.load(), 1);
}

/// Fails when what a RST ended stays known for the rest of the second.
#[test]
fn after_a_rst_conntrack_is_asked_again_at_once() {
    let lab = exact();
    lab.leave(&data(LOCAL, REMOTE, 80, 4000));
    track(&lab, 4000, 80);
    for _ in 0..3 {
        assert_eq!(lab.tcp(REMOTE, 4000, TcpFlags::ACK), Outcome::Known);
    }
    lab.tcp(REMOTE, 4000, TcpFlags::RST);
    lab.conntrack.borrow_mut().clear();
    assert!(lab.tcp(REMOTE, 4000, TcpFlags::ACK) == Outcome::Admitted);
}

/// Fails when switching a dry run off cuts the flows that passed in it.
#[test]
fn what_a_dry_run_lets_pass_is_noted() {
    let mut lab = exact();
    lab.policy.switches = Policy::DRY_RUN;
    lab.grant.allowances[0].limit.store(0);
    assert!(is_refused(lab.udp(REMOTE, 5)));
    track(&lab, 5, 9);
    assert_eq!(lab.udp(REMOTE, 5), Outcome::Known);
}

#[test]
fn one_way_traffic_is_asked_of_once_a_second() {
    let lab = exact();
    assert!(lab.udp(REMOTE, 5) == Outcome::Admitted);
    track(&lab, 5, 9);
    for _ in 0..10 {
        assert_eq!(lab.udp(REMOTE, 5), Outcome::Known);
    }
    assert_eq!(lab.asked.get(), 1);
}

#[test]
fn an_ack_of_no_connection_is_charged_and_one_of_a_connection_is_not() {
    let lab = exact();
    let admitted = Lab::admitted_of(100, |port| lab.tcp(REMOTE, port, TcpFlags::ACK));
    assert_eq!(admitted, BURST);
    lab.leave(&data(LOCAL, REMOTE, 80, 4000));
    lab.pass_seconds(3);
    track(&lab, 4000, 80);
    assert_eq!(lab.tcp(REMOTE, 4000, TcpFlags::ACK), Outcome::Known);
}

#[test]
fn without_tcp_loose_only_a_syn_is_charged_and_nothing_asked() {
    let mut lab = exact();
    lab.environment.daemon.tcp_loose = 0;
    let ack = Lab::admitted_of(100, |port| lab.tcp(REMOTE, port, TcpFlags::ACK));
    assert_eq!((ack, lab.asked.get()), (0, 0));
}

/// Fails when a flush of the table leaves established flows uncharged for longer than a second.
#[test]
fn a_flush_of_the_table_is_noticed_within_two_seconds() {
    let lab = exact();
    track(&lab, 4000, 80);
    lab.leave(&data(LOCAL, REMOTE, 80, 4000));
    lab.pass_seconds(1);
    assert_eq!(lab.tcp(REMOTE, 4000, TcpFlags::ACK), Outcome::Known);
    lab.conntrack.borrow_mut().clear();
    lab.pass_seconds(2);
    assert!(lab.tcp(REMOTE, 4000, TcpFlags::ACK) == Outcome::Admitted);
}
