//! Where some class is not calm: tiers, shares and challenges.

mod bounds;
mod impersonated;
mod truncated;

use std::vec::Vec;

use super::lab::{BURST, LOCAL, Lab, REMOTE, syn, udp};
use crate::{
    guard::{Judgement, Memory},
    hash,
    hash::testing::KEY,
    layout::{
        CLASS_SLOTS, Ceiling, Class, Limits, MemoryLine, OperatorLimits, Outcome, Policy, Stage,
        Tier,
    },
    packet::TcpFlags,
    place::Place,
    sources::{self, Tiers},
    units::Ticks,
    verifier::OpaqueZero,
};

pub(super) const ASKED: (Outcome, Class) = (Outcome::ChallengedByAck, Class::Tcp);
pub(super) const TO_COME_AGAIN: (Outcome, Class) = (Outcome::ChallengedBySilence, Class::Udp);
pub(super) const ANSWERED: (Outcome, Class, Tier) = (Outcome::Admitted, Class::Tcp, Tier::Answered);
const RETRIED: (Outcome, Class, Tier) = (Outcome::Admitted, Class::Udp, Tier::Retried);

pub(super) fn challenging() -> Lab {
    let mut lab = Lab::new();
    lab.limits.stages = [Stage::Challenge as u32; 4];
    lab.limits.tiers_in_use = 1;
    for tier in Tier::ALL {
        lab.grant.allowances[tier.slot()].limit.store(1_000_000);
        lab.grant.allowances[tier.slot()].wake_at.store(900_000);
    }
    lab
}

pub(super) fn know(lab: &Lab, address: u32, tiers: Tiers) {
    let hash = hash::scope(&KEY, 4, address.into());
    let place = Place::of(hash, lab.environment.fixed.known_source_line_mask, OpaqueZero::new(0));
    assert_eq!(sources::insert(&lab, place, tiers), sources::Insertion::Inserted);
}

/// A RST with this sequence number.
pub(super) fn reset(lab: &Lab, port: u32, sequence: u32) -> Judgement {
    reset_from(lab, REMOTE, port, sequence)
}

fn reset_from(lab: &Lab, from: &str, port: u32, sequence: u32) -> Judgement {
    let mut frame = super::tcp(from, LOCAL, port, 80, TcpFlags::RST);
    let at = frame.len() - 20 + 4;
    frame[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
    lab.judge(&frame)
}

/// Fails when a live client is kept out, or a tuple that answered opens more than one flow.
#[test]
fn a_syn_is_answered_and_its_tuple_admitted_once_when_the_cookie_comes_back() {
    let lab = challenging();
    assert_eq!(lab.syn(REMOTE, 5), ASKED);
    let cookie = lab.cookie.get().unwrap();
    assert_eq!(reset(&lab, 5, cookie), Outcome::ChallengeAnswered);
    assert_eq!(lab.syn(REMOTE, 6), ASKED, "another tuple of the same source");
    assert_eq!(lab.syn(REMOTE, 5), ANSWERED);
    lab.pass_seconds(1);
    assert_eq!(lab.syn(REMOTE, 5), Outcome::Repeated, "a retransmission is not charged");
}

#[test]
fn a_reset_without_the_cookie_opens_nothing() {
    let lab = challenging();
    assert_eq!(lab.syn(REMOTE, 5), ASKED);
    let cookie = lab.cookie.get().unwrap();
    for wrong in [cookie.wrapping_add(1), cookie ^ 1 << 31, 0] {
        assert_eq!(reset(&lab, 5, wrong), Outcome::MakesNoEntry);
    }
    assert_eq!(reset(&lab, 6, cookie), Outcome::MakesNoEntry, "another tuple's");
    assert_eq!(lab.syn(REMOTE, 5), ASKED);
}

#[test]
fn an_answer_is_good_for_half_a_minute_and_a_cookie_for_its_slot_and_the_next() {
    let lab = challenging();
    lab.syn(REMOTE, 5);
    let cookie = lab.cookie.get().unwrap();
    assert_eq!(reset(&lab, 5, cookie), Outcome::ChallengeAnswered);
    lab.pass_seconds(9);
    assert_eq!(reset(&lab, 5, cookie), Outcome::MakesNoEntry);
    for _ in 0..600 {
        lab.pass_seconds(29);
        assert_eq!(lab.syn(REMOTE, 5), ASKED, "also when a short time came round");
    }
}

/// Sends a connection's SYNs at these milliseconds, and answers each challenge; the number of SYNs
/// until one is admitted.
fn syns_until_admitted(lab: &Lab, from: &str, port: u32, milliseconds: &[u64]) -> Option<usize> {
    let mut last = 0;
    for (syn, at) in milliseconds.iter().enumerate() {
        lab.pass(at - last);
        last = *at;
        let judged = lab.syn(from, port);
        if judged == Outcome::Admitted {
            return Some(syn + 1);
        }
        assert_eq!(judged, ASKED);
        let cookie = lab.cookie.get().unwrap();
        assert_eq!(reset_from(lab, from, port, cookie), Outcome::ChallengeAnswered);
    }
    None
}

/// Fails when a client whose SYN is not its connection's first never gets in, because each of its
/// answers is forgotten before its next SYN.
#[test]
fn whichever_syn_is_the_first_to_be_challenged_the_next_one_is_admitted() {
    const LINUX: [u64; 7] = [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000];
    for first in 0..LINUX.len() - 1 {
        for client in 0..100 {
            let lab = challenging();
            let syns: Vec<u64> = LINUX[first..].iter().map(|at| at - LINUX[first]).collect();
            lab.pass(client * 37);
            let port = u32::try_from(client).unwrap();
            assert_eq!(syns_until_admitted(&lab, REMOTE, port, &syns), Some(2), "from {first}");
        }
    }
}

/// Fails when stacks that repeat no SYN at once are kept out.
#[test]
fn clients_with_an_ordinary_timer_get_in_with_their_second_syn() {
    for timer in [250, 500, 700, 1_000, 3_000, 6_000] {
        let lab = challenging();
        for host in 1..=100 {
            let from = format!("192.0.2.{host}");
            let syns = [0, timer, 3 * timer];
            assert_eq!(syns_until_admitted(&lab, &from, 5, &syns), Some(2), "{timer} ms");
        }
    }
}

/// Fails when an answer is lost with a SYN that the guard refuses.
#[test]
fn an_answer_lasts_until_its_syn_is_admitted() {
    let lab = challenging();
    let grant = &lab.grant.allowances[Tier::Answered.slot()].limit;
    grant.store(0);
    lab.syn(REMOTE, 5);
    reset(&lab, 5, lab.cookie.get().unwrap());
    for seconds in [0, 1, 2, 4, 8, 16] {
        lab.pass_seconds(seconds);
        assert_eq!(lab.syn(REMOTE, 5), (Outcome::RefusedGrant, Class::Tcp));
    }
    grant.store(1_000_000);
    lab.pass_seconds(3);
    assert_eq!(lab.syn(REMOTE, 5), ANSWERED);
    lab.pass_seconds(5);
    assert_eq!(lab.syn(REMOTE, 5), ASKED, "it is good for one flow");
}

/// Fails when who sends three packets in the name of a source keeps it out, or when a client that
/// gives up one of two connections (RFC 8305), or a check that looks for an open port, does so to
/// itself.
#[test]
fn a_connection_that_is_reset_takes_no_other_connection_of_its_source() {
    let lab = challenging();
    assert_eq!(answer_and_open(&lab, 5), ANSWERED);
    assert_ne!(reset(&lab, 5, 77), Outcome::ChallengeAnswered);
    assert_eq!(answer_and_open(&lab, 6), ANSWERED);
}

/// Fails when who spoofs an address has a host there showered with challenges.
#[test]
fn a_source_is_sent_ten_challenges_a_second_after_a_burst_of_ten() {
    let lab = challenging();
    let asked = || (0..100).filter(|port| lab.syn(REMOTE, 1000 + port) == ASKED).count();
    assert_eq!(asked(), 10);
    assert_eq!(lab.syn("192.0.2.2", 5), ASKED, "others are asked");
    let later: usize = (0..100)
        .map(|_| {
            lab.pass(100);
            asked()
        })
        .sum();
    assert_eq!(later, 100, "in ten seconds");
}

/// Fails when the guard sends more answers than it may, whoever they go to.
#[test]
fn beyond_what_may_be_answered_in_all_a_syn_is_to_come_again() {
    let mut lab = challenging();
    lab.environment.daemon.answers = 40;
    let source = |host: u32| format!("10.0.0.{host}");
    let asked = |lab: &Lab| (0..100).filter(|&host| lab.syn(&source(host), 5) == ASKED).count();
    assert_eq!(asked(&lab), 40);
    lab.pass(128);
    assert_eq!(asked(&lab), 40, "in each eighth of a second");
    lab.pass(1_000);
    lab.environment.operator.answers = 1;
    let again = Lab::admitted_of(100, |host| lab.syn(&source(host), 5));
    assert!(again >= 50, "{again} that were not asked");
}

/// Fails when a flood in a source's name keeps it out.
#[test]
fn who_is_not_asked_because_its_address_is_spoofed_gets_in_with_its_second_syn() {
    let lab = challenging();
    let spoof = |from: u32| Lab::admitted_of(20, |port| lab.syn(REMOTE, from + port));
    assert_eq!(spoof(1000), 0);
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::ChallengedBySilence, Class::Tcp));
    for round in 1..=10 {
        lab.pass(100);
        assert_eq!(spoof(1000 + 20 * round), 0);
    }
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::Admitted, Class::Tcp, Tier::Retried));
}

/// Fails when one source that answers makes the guard forget the answers of the others.
#[test]
fn who_answers_as_often_as_it_is_asked_drives_out_no_others_answer() {
    const LINES: u32 = 8192;
    let mut lab = challenging();
    lab.environment.fixed.answered_line_mask = LINES - 1;
    lab.memories[Memory::Answered as usize].resize_with(LINES as usize, MemoryLine::default);
    let client = |number: u32| format!("10.0.{}.{}", number / 256, number % 256);
    for number in 0..1000 {
        let from = client(number);
        assert_eq!(lab.syn(&from, 5), ASKED);
        reset_from(&lab, &from, 5, lab.cookie.get().unwrap());
    }
    for millisecond in 0..31_000 {
        lab.pass(1);
        for round in 0..4 {
            let port = 1 + millisecond % 16_000 * 4 + round;
            if lab.syn(REMOTE, port) == ASKED {
                reset(&lab, port, lab.cookie.get().unwrap());
            }
        }
    }
    let lasting = (0..1000).filter(|&number| lab.syn(&client(number), 5) == ANSWERED).count();
    assert!(lasting >= 990, "{lasting} of 1,000");
}

/// Fails when resolvers, which ask again from another port, are kept out.
#[test]
fn a_datagram_that_comes_again_after_a_while_is_admitted_from_any_port() {
    let lab = challenging();
    for (source, again) in [(REMOTE, 5), ("192.0.2.2", 6)] {
        assert_eq!(lab.udp(source, 5), TO_COME_AGAIN);
        assert_eq!(lab.udp(source, again), TO_COME_AGAIN, "at once");
        lab.pass_seconds(1);
        assert_eq!(lab.judge(&udp(source, LOCAL, again, 10)), TO_COME_AGAIN, "another service");
        assert_eq!(lab.judge(&udp(source, "198.51.100.9", again, 9)), TO_COME_AGAIN);
        assert_eq!(lab.udp(source, again), RETRIED);
    }
    assert_eq!(lab.udp("192.0.2.3", 5), TO_COME_AGAIN);
    lab.pass_seconds(13);
    assert_eq!(lab.udp("192.0.2.3", 5), TO_COME_AGAIN, "forgotten");
    lab.pass_seconds(1);
    assert_eq!(lab.udp("192.0.2.3", 6), RETRIED);
}

#[test]
fn an_ipv6_datagram_that_comes_again_from_another_port_is_admitted() {
    let lab = challenging();
    assert_eq!(lab.udp6("2001:db8::1", 5), TO_COME_AGAIN);
    lab.pass_seconds(1);
    assert_eq!(lab.udp6("2001:db8::2", 6), TO_COME_AGAIN, "another address of the /64");
    assert_eq!(lab.udp6("2001:db8::1", 6), RETRIED);
}

/// Fails when weak evidence keeps out who has better: a flood repeats addresses by chance.
#[test]
fn better_evidence_has_what_it_is_expected_to_ask_for() {
    let lab = remembering();
    let source = |number: u32| format!("10.0.{}.{}", number >> 8, number & 0xff);
    let admitted =
        |from: u32, port| Lab::admitted_of(100, |number| lab.udp(&source(from + number), port));
    for from in [0, 100, 200] {
        assert_eq!(admitted(from, 5), 0, "the first of each");
    }
    let grant = &lab.grant.allowances[Tier::Retried.slot()].limit;
    grant.store(0);
    lab.pass_seconds(1);
    assert_eq!(admitted(0, 7), 0, "seconds, refused");
    assert_eq!(Lab::admitted_of(20, |number| lab.udp(&source(number), 8)), 0, "thirds");
    grant.store(100);
    let of_seconds = admitted(100, 6);
    assert!((40..=75).contains(&of_seconds), "{of_seconds} leave what others may ask for");
    let of_thirds = admitted(0, 9);
    assert_eq!(of_seconds + of_thirds, 100, "thirds take what is left");
    // Now 100 thirds are expected, but they cannot have it all.
    grant.store(200);
    let from_the_same_port = admitted(200, 5);
    assert!((50..=60).contains(&from_the_same_port), "{from_the_same_port} of 100");
}

/// Fails when a SYN from another port passes for one that comes again.
#[test]
fn a_syn_comes_again_only_from_its_own_port() {
    let mut lab = challenging();
    lab.interface.answers_nothing = 1;
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::ChallengedBySilence, Class::Tcp));
    lab.pass_seconds(1);
    assert_eq!(lab.syn(REMOTE, 6), (Outcome::ChallengedBySilence, Class::Tcp));
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::Admitted, Class::Tcp, Tier::Retried));
}

#[test]
fn where_nothing_is_answered_a_syn_is_to_come_again() {
    let mut lab = challenging();
    lab.interface.answers_nothing = 1;
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::ChallengedBySilence, Class::Tcp));
    lab.pass_seconds(1);
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::Admitted, Class::Tcp, Tier::Retried));
}

#[test]
fn a_segment_that_cannot_be_challenged_is_refused() {
    let lab = challenging();
    let refused = (Outcome::RefusedChallenge, Class::Tcp);
    assert_eq!(lab.tcp(REMOTE, 5, TcpFlags::ACK), refused);
}

/// Fails when a known source is challenged, or shares cells with strangers.
#[test]
fn known_sources_are_asked_nothing_and_have_cells_of_their_own() {
    let lab = challenging();
    know(&lab, 0xc000_0201, Tiers::PROVEN.and(Tiers::REGULAR));
    know(&lab, 0xc000_0202, Tiers::PROVEN);
    for line in &lab.buckets {
        line.arrivals.iter().for_each(|arrival| arrival.store(u64::MAX / 4));
    }
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::Admitted, Class::Tcp, Tier::Regulars));
    assert_eq!(lab.udp("192.0.2.2", 5), (Outcome::Admitted, Class::Udp, Tier::Proven));
    let admitted = Lab::admitted_of(100, |port| lab.syn(REMOTE, 1000 + port));
    assert_eq!(admitted, BURST - 1, "its ceiling holds");
}

#[test]
fn a_source_above_its_part_is_served_in_a_tier_of_its_own_with_cells_of_its_own() {
    let lab = challenging();
    know(&lab, 0xc000_0201, Tiers::REGULAR.and(Tiers::ABOVE_PART));
    for line in &lab.buckets {
        line.arrivals.iter().for_each(|arrival| arrival.store(u64::MAX / 4));
    }
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::Admitted, Class::Tcp, Tier::AbovePart));
    assert_eq!(lab.udp(REMOTE, 5), (Outcome::Admitted, Class::Udp, Tier::AbovePart));
    lab.grant.allowances[Tier::AbovePart.slot()].limit.store(0);
    assert_eq!(lab.udp(REMOTE, 6), (Outcome::RefusedGrant, Class::Udp));
}

/// Fails when who spoofs the packets of a known source opens flows as that source.
#[test]
fn a_known_source_whose_entries_prove_nothing_is_challenged_in_any_stage() {
    let mut lab = challenging();
    lab.limits.stages = [0; 4];
    know(&lab, 0xc000_0201, Tiers::REGULAR.and(Tiers::CHALLENGED));
    assert_eq!(lab.syn(REMOTE, 5), ASKED);
    assert_eq!(reset(&lab, 5, lab.cookie.get().unwrap()), Outcome::ChallengeAnswered);
    assert_eq!(lab.syn(REMOTE, 5), ANSWERED);
    assert_eq!(lab.udp(REMOTE, 5), TO_COME_AGAIN);
    lab.pass_seconds(1);
    assert_eq!(lab.udp(REMOTE, 5), RETRIED);
    assert_eq!(lab.udp("192.0.2.2", 5), (Outcome::Admitted, Class::Udp, Tier::Strangers));
}

/// Opens a connection from a port as a client that lives.
pub(super) fn answer_and_open(lab: &Lab, port: u32) -> Judgement {
    let first = lab.syn(REMOTE, port);
    if first != ASKED {
        return first;
    }
    assert_eq!(reset(lab, port, lab.cookie.get().unwrap()), Outcome::ChallengeAnswered);
    lab.syn(REMOTE, port)
}

fn fair() -> Lab {
    let mut lab = challenging();
    lab.limits.stages = [Stage::Fair as u32; 4];
    lab
}

/// Fails when who spoofs a source keeps it from opening connections.
#[test]
fn spoofed_packets_never_spend_what_a_source_opens_with_an_answer() {
    for (tiers, tier) in [(None, Tier::Answered), (Some(Tiers::REGULAR), Tier::Regulars)] {
        let mut lab = fair();
        lab.environment.daemon.challenge_interval = 0;
        if let Some(tiers) = tiers {
            know(&lab, 0xc000_0201, tiers);
        }
        assert_eq!(Lab::admitted_of(1000, |port| lab.syn(REMOTE, port)), BURST);
        for port in 2000..2000 + BURST {
            assert_eq!(answer_and_open(&lab, port), (Outcome::Admitted, Class::Tcp, tier));
        }
        assert_eq!(answer_and_open(&lab, 3000), (Outcome::RefusedSource, Class::Tcp));
        assert_eq!(Lab::admitted_of(100, |port| lab.udp(REMOTE, port)), BURST);
    }
}

/// Fails when a source gets its ceiling twice because it answers.
#[test]
fn a_ceiling_holds_for_all_flows_of_a_source_that_answers() {
    let mut lab = fair();
    lab.environment.daemon.challenge_interval = 0;
    let opened = |from: u32| Lab::admitted_of(100, |port| answer_and_open(&lab, from + port));
    assert_eq!(opened(0), 2 * BURST, "a burst of each");
    let later: u32 = (1..=100)
        .map(|round| {
            lab.pass(100);
            opened(round * 100)
        })
        .sum();
    assert_eq!(later, 20 * 10, "its rate for ten seconds");
}

/// Fails when nobody looks for the answer in calm, or when each jiffy of such a flood wakes the
/// daemon.
#[test]
fn the_operators_ceiling_is_answered_in_calm_too_and_wakes_nobody() {
    let mut lab = challenging();
    lab.limits = Limits::default();
    assert_eq!(Lab::admitted_of(15, |port| lab.syn(REMOTE, port)), BURST);
    assert!(!lab.judge(&syn(REMOTE, LOCAL, 1000)).wakes());
    assert_eq!(answer_and_open(&lab, 1001), ANSWERED);
    lab.interface.answers_nothing = 1;
    assert_eq!(lab.syn(REMOTE, 1002), (Outcome::RefusedSource, Class::Tcp), "nor asked here");
    assert_eq!(lab.tcp(REMOTE, 1003, TcpFlags::ACK), (Outcome::RefusedSource, Class::Tcp));
}

#[test]
fn no_answer_is_looked_for_when_nothing_was_asked_for_two_cookies_long() {
    let lab = challenging();
    lab.syn(REMOTE, 5);
    let cookie = lab.cookie.get().unwrap();
    lab.grant.challenged_at.store(lab.now.borrow().0 - 2 * 4096);
    assert_eq!(reset(&lab, 5, cookie), Outcome::MakesNoEntry);
}

#[test]
fn one_class_under_challenge_leaves_the_others_unasked() {
    let mut lab = challenging();
    lab.limits.stages = [Stage::Challenge as u32, Stage::Fair as u32, 0, 0];
    assert_eq!(lab.syn(REMOTE, 5), ASKED);
    assert_eq!(lab.udp(REMOTE, 5), (Outcome::Admitted, Class::Udp, Tier::Strangers));
}

#[test]
fn the_stricter_of_ceiling_and_share_holds() {
    let mut lab = challenging();
    lab.limits.stages = [Stage::Fair as u32; 4];
    let interval = Ticks(lab.interface.ceilings[0].interval.0 * 10);
    let share = Ceiling { interval, tolerance: Ticks(interval.0 * 2) };
    lab.limits.shares[Tier::Strangers.slot()] = [share; CLASS_SLOTS];
    assert_eq!(Lab::admitted_of(50, |port| lab.syn(REMOTE, port)), 3);
}

#[test]
fn a_prefix_and_a_service_have_limits_of_their_own() {
    let mut lab = Lab::new();
    let limit = Ceiling { interval: Ticks(1 << 30), tolerance: Ticks(4 << 30) };
    lab.environment.operator.scopes_in_use = OperatorLimits::PREFIX;
    lab.environment.operator.prefix = [limit; CLASS_SLOTS];
    let from = |host: u32| lab.syn(&format!("192.0.2.{host}"), 5);
    assert_eq!(Lab::admitted_of(50, |host| from(host + 1)), 5);
    assert_eq!(from(200), (Outcome::RefusedPrefix, Class::Tcp));
    assert!(lab.syn("192.0.3.1", 5) == Outcome::Admitted, "another prefix");

    let mut lab = Lab::new();
    lab.environment.operator.scopes_in_use = OperatorLimits::SERVICE;
    lab.environment.operator.service = [limit; CLASS_SLOTS];
    let to = |host: u32, port| lab.judge(&udp(&format!("192.0.2.{host}"), LOCAL, 7, port));
    assert_eq!(Lab::admitted_of(50, |host| to(host + 1, 53)), 5);
    assert_eq!(to(200, 53), (Outcome::RefusedService, Class::Udp));
    assert!(to(200, 54) == Outcome::Admitted, "another service");
}

/// Fails when a dry run answers, or drops its own admissions out of the memory.
#[test]
fn a_dry_run_answers_nothing() {
    let mut lab = challenging();
    lab.policy.switches = Policy::DRY_RUN;
    assert_eq!(lab.judge(&syn(REMOTE, LOCAL, 5)), ASKED);
    assert_eq!(lab.cookie.get(), None);
}

/// A lab with room for whoever may come again.
fn remembering() -> Lab {
    let mut lab = challenging();
    lab.environment.fixed.retry_line_mask = 4095;
    lab.retries.resize_with(4096, Default::default);
    lab
}
