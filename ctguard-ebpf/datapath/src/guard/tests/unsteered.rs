//! While no daemon steers: it is dead, or has not noticed a flood yet.

use std::vec::Vec;

use super::{
    challenge::{ANSWERED, ASKED, TO_COME_AGAIN, answer_and_open, challenging, know, reset},
    lab::{LOCAL, Lab, REMOTE, syn},
};
use crate::{
    guard::Judgement,
    layout::{Class, Limits, Outcome, Policy, Tier},
    packet::TcpFlags,
    sources::Tiers,
    units::Ticks,
};

/// A guard whose daemon died: some flows of a tier are left at once, then one each ten jiffies.
fn orphaned(mut lab: Lab, tier: Tier, burst: u64) -> Lab {
    lab.grant.heartbeat.store(0);
    lab.lift_ceilings();
    let interval = 10 * Ticks::PER_JIFFY;
    for fallback in &lab.grant.fallback {
        fallback.interval.store(u64::MAX / 4);
        fallback.arrival.store(u64::MAX / 2);
    }
    let fallback = &lab.grant.fallback[tier.slot()];
    fallback.interval.store(interval);
    fallback.tolerance.store((burst - 1) * interval);
    fallback.arrival.store(0);
    lab
}

/// Fails when a dead daemon costs clients that live their connections.
#[test]
fn a_spent_fallback_challenges_syns_and_stages_stay_in_force() {
    let mut calm = challenging();
    calm.limits = Limits::default();
    let lab = orphaned(calm, Tier::Answered, 3);
    know(&lab, 0xc000_0202, Tiers::PROVEN);
    let proven = &lab.grant.fallback[Tier::Proven.slot()];
    proven.interval.store(1);
    proven.arrival.store(0);
    let opened = |port| answer_and_open(&lab, port);
    let outcomes: Vec<Judgement> = (0..4).map(opened).collect();
    assert_eq!(outcomes[..3], [ANSWERED; 3]);
    assert_eq!(outcomes[3], (Outcome::RefusedFallback, Class::Tcp));
    assert_eq!(lab.udp(REMOTE, 5), (Outcome::RefusedFallback, Class::Udp));
    assert_eq!(lab.syn("192.0.2.2", 5), (Outcome::Admitted, Class::Tcp, Tier::Proven));

    let lab = orphaned(challenging(), Tier::Strangers, 100);
    assert_eq!(lab.syn(REMOTE, 5), ASKED);
    assert_eq!(lab.udp(REMOTE, 5), TO_COME_AGAIN);
}

/// The daemon counts on this when it sets the burst to half of the room that was free.
#[test]
fn a_fresh_fallback_gives_its_burst_exactly_and_once() {
    let lab = orphaned(Lab::new(), Tier::Strangers, 5000);
    let from = |host: u32| lab.udp(&format!("10.{}.{}.1", host / 256, host % 256), 1);
    assert_eq!(Lab::admitted_of(20_000, from), 5000);
    let later: u32 = (0..100)
        .map(|round| {
            lab.pass(100);
            Lab::admitted_of(100, |host| from(20_000 + 100 * round + host))
        })
        .sum();
    assert_eq!(later, 100 * 10, "its rate, and no second burst");
}

/// A guard whose daemon died while it refused by its grants, in calm.
#[test]
fn fail_open_challenges_nobody_for_a_spent_fallback() {
    let mut lab = orphaned(Lab::new(), Tier::Strangers, 1);
    lab.policy.switches = Policy::FAIL_OPEN;
    assert_eq!(Lab::admitted_of(100, |port| lab.syn(REMOTE, port)), 100);
}

/// A guard that was calm when a flood spent what strangers may open.
fn surprised() -> Lab {
    let mut lab = challenging();
    lab.limits = Limits::default();
    lab.grant.allowances[Tier::Strangers.slot()].limit.store(0);
    lab
}

/// Fails when known sources lose flows until the daemon has noticed a flood.
#[test]
fn known_sources_open_flows_when_the_grant_of_strangers_is_spent_in_calm() {
    let lab = surprised();
    know(&lab, 0xc000_0201, Tiers::REGULAR);
    know(&lab, 0xc000_0202, Tiers::PROVEN);
    assert_eq!(lab.syn(REMOTE, 5), (Outcome::Admitted, Class::Tcp, Tier::Regulars));
    assert_eq!(lab.udp("192.0.2.2", 5), (Outcome::Admitted, Class::Udp, Tier::Proven));
    assert_eq!(lab.udp("192.0.2.3", 5), (Outcome::RefusedGrant, Class::Udp));
    lab.grant.allowances[Tier::Strangers.slot()].limit.store(1_000_000);
    assert_eq!(lab.syn(REMOTE, 6), (Outcome::Admitted, Class::Tcp, Tier::Strangers));
}

/// Fails when a client that lives waits for its retransmission because the daemon had not run yet,
/// or when nobody wakes the daemon.
#[test]
fn a_syn_is_asked_when_the_grant_is_spent_in_calm_and_its_answer_counts() {
    let mut lab = surprised();
    let asked = lab.judge(&syn(REMOTE, LOCAL, 5));
    assert_eq!(asked, ASKED);
    assert!(asked.wakes());
    let cookie = lab.cookie.get().unwrap();
    let segment = (Outcome::RefusedGrant, Class::Tcp);
    assert_eq!(lab.tcp(REMOTE, 6, TcpFlags::ACK), segment, "it cannot be asked");
    assert_eq!(reset(&lab, 5, cookie), Outcome::ChallengeAnswered);
    assert_eq!(lab.syn(REMOTE, 5), ANSWERED);
    lab.interface.answers_nothing = 1;
    assert_eq!(lab.syn(REMOTE, 7), (Outcome::RefusedGrant, Class::Tcp), "nor here");
}
