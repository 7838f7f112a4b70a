//! Limits of prefixes and of services, and what is told of flows that are not admitted.

use std::vec::Vec;

use super::{
    super::admit::stricter,
    challenge::challenging,
    lab::{BURST, JIFFIES_PER_SECOND, LOCAL, Lab, REMOTE, START, udp},
};
use crate::{
    guard::Judgement,
    layout::{CLASS_SLOTS, Ceiling, Class, Interface, Limits, List, OperatorLimits, Outcome, Tier},
    units::Ticks,
};

const SECOND: u64 = JIFFIES_PER_SECOND * Ticks::PER_JIFFY;
const BY_PREFIX: (Outcome, Class) = (Outcome::RefusedPrefix, Class::Udp);
const BY_SERVICE: (Outcome, Class) = (Outcome::RefusedService, Class::Udp);

/// So many flows at once, and one each second.
const fn at_once(flows: u64) -> [Ceiling; CLASS_SLOTS] {
    [Ceiling { interval: Ticks(SECOND), tolerance: Ticks((flows - 1) * SECOND) }; CLASS_SLOTS]
}

fn limiting_prefixes(flows: u64) -> Lab {
    let mut lab = Lab::new();
    lab.environment.operator.scopes_in_use |= OperatorLimits::PREFIX;
    lab.environment.operator.prefix = at_once(flows);
    lab
}

fn limiting_services(flows: u64) -> Lab {
    let mut lab = Lab::new();
    lab.environment.operator.scopes_in_use |= OperatorLimits::SERVICE;
    lab.environment.operator.service = at_once(flows);
    lab
}

fn ask(lab: &Lab, from: &str, port: u32, to: u32) -> Judgement {
    lab.judge(&udp(from, LOCAL, port, u16::try_from(to).unwrap()))
}

#[test]
fn sources_of_a_prefix_share_its_limit() {
    let lab = limiting_prefixes(3);
    for host in 1..=3 {
        assert_eq!(lab.udp(&format!("192.0.2.{host}"), 1), Outcome::Admitted);
        assert_eq!(lab.udp6(&format!("2001:db8:7:{host}::1"), 1), Outcome::Admitted);
    }
    assert_eq!(lab.udp("192.0.2.4", 1), BY_PREFIX);
    assert_eq!(lab.udp6("2001:db8:7:ffff::1", 1), BY_PREFIX);
    assert_eq!(lab.udp("192.0.3.4", 1), Outcome::Admitted);
    assert_eq!(lab.udp6("2001:db8:8::1", 1), Outcome::Admitted);
    assert_eq!(lab.syn("192.0.2.4", 1), Outcome::Admitted, "another class");
    lab.pass_seconds(1);
    assert_eq!(lab.udp("192.0.2.4", 1), Outcome::Admitted);
    assert_eq!(lab.udp("192.0.2.5", 1), BY_PREFIX);
}

#[test]
fn all_sources_share_the_limit_of_a_service() {
    let lab = limiting_services(3);
    for host in 1..=3 {
        assert_eq!(ask(&lab, &format!("192.0.{host}.1"), 1, 53), Outcome::Admitted);
    }
    assert_eq!(ask(&lab, "192.0.4.1", 1, 53), BY_SERVICE);
    assert_eq!(ask(&lab, "192.0.4.1", 1, 54), Outcome::Admitted);
    assert_eq!(lab.judge(&udp("192.0.4.1", "198.51.100.2", 1, 53)), Outcome::Admitted);
    lab.pass_seconds(1);
    assert_eq!(ask(&lab, "192.0.4.2", 1, 53), Outcome::Admitted);
    assert_eq!(ask(&lab, "192.0.4.3", 1, 53), BY_SERVICE);
}

/// Fails when an operator's exemption ends where a neighbour has spent a limit.
#[test]
fn neither_limit_holds_an_allowed_source() {
    for limiting in [limiting_prefixes, limiting_services] {
        let mut lab = limiting(3);
        lab.list(List::AllowV4, REMOTE, 0);
        lab.grant.allowances[1].limit.store(100);
        assert_eq!(Lab::admitted_of(50, |port| lab.udp(REMOTE, port)), 50);
    }
}

#[test]
fn packets_that_follow_an_admission_are_held_to_neither_limit() {
    for limiting in [limiting_prefixes, limiting_services] {
        let lab = limiting(1);
        assert_eq!(lab.udp(REMOTE, 7), Outcome::Admitted);
        for _ in 0..10 {
            assert_eq!(lab.udp(REMOTE, 7), Outcome::Known);
        }
        assert_ne!(lab.udp(REMOTE, 8), Outcome::Admitted);
    }
}

#[test]
fn on_an_interface_without_a_slot_neither_limit_holds() {
    for limiting in [limiting_prefixes, limiting_services] {
        let mut lab = limiting(1);
        lab.unknown_interface = true;
        for port in 1..10 {
            assert_eq!(lab.udp(REMOTE, port), Outcome::UnknownInterface);
        }
    }
}

/// Fails when rates that are set and then taken out of use go on holding.
#[test]
fn what_is_not_in_use_limits_nobody() {
    for limiting in [limiting_prefixes, limiting_services] {
        let mut lab = limiting(3);
        lab.environment.operator.scopes_in_use = 0;
        assert_eq!(Lab::admitted_of(100, |port| lab.udp(REMOTE, port)), BURST);
    }
}

#[test]
fn a_flow_that_one_limit_refuses_is_charged_to_no_other() {
    let mut lab = limiting_services(3);
    lab.environment.operator.scopes_in_use |= OperatorLimits::PREFIX;
    lab.environment.operator.prefix = at_once(6);
    assert_eq!(Lab::admitted_of(50, |port| ask(&lab, REMOTE, port, 53)), 3);
    assert_eq!(ask(&lab, REMOTE, 60, 53), BY_SERVICE);
    assert_eq!(Lab::admitted_of(50, |port| ask(&lab, REMOTE, port, 100 + port)), 3);
    assert_eq!(ask(&lab, REMOTE, 60, 90), BY_PREFIX);
    lab.environment.operator.scopes_in_use = 0;
    assert_eq!(Lab::admitted_of(50, |port| ask(&lab, REMOTE, port, 200)), BURST - 6);
}

/// Fails when a dead daemon makes packets of flows that were admitted fail.
#[test]
fn a_packet_that_follows_an_admission_passes_when_the_fallback_rate_is_spent() {
    let lab = Lab::new();
    lab.grant.heartbeat.store(START.0 - 2 * JIFFIES_PER_SECOND - 1);
    lab.grant.fallback[0].interval.store(SECOND);
    assert_eq!(lab.udp(REMOTE, 7), Outcome::Admitted);
    assert_eq!(lab.udp(REMOTE, 8), (Outcome::RefusedFallback, Class::Udp));
    assert_eq!(lab.udp(REMOTE, 7), Outcome::Known);
    assert_eq!(lab.grant.admitted[0].0.load(), 2);
}

/// Fails when a tier is held to the share of another.
#[test]
fn a_source_is_held_to_the_share_of_its_own_tier_if_that_is_stricter_than_its_ceiling() {
    let ceiling = |interval| Ceiling { interval: Ticks(interval), tolerance: Ticks(0) };
    let interface = Interface { ceilings: [ceiling(5); CLASS_SLOTS], ..Interface::FREE };
    let mut limits = Limits::default();
    for tier in Tier::ALL {
        for class in Class::ALL {
            let share = 10 * tier as u64 + class as u64;
            limits.shares[tier.slot()][class as usize] = ceiling(share);
        }
    }
    for tier in Tier::ALL {
        for class in Class::ALL {
            let held = stricter(&interface, &limits, tier as u32, class as u32).interval;
            assert_eq!(held.0, (10 * tier as u64 + class as u64).max(5), "{tier:?}, {class:?}");
        }
    }
}

#[test]
fn a_grant_holds_until_the_daemon_has_been_silent_for_longer_than_its_patience() {
    let lab = Lab::new();
    lab.grant.fallback[0].interval.store(SECOND);
    lab.grant.allowances[0].limit.store(1);
    lab.grant.heartbeat.store(START.0 - 2 * JIFFIES_PER_SECOND);
    assert_eq!(lab.udp(REMOTE, 7), Outcome::Admitted);
    assert_eq!(lab.udp(REMOTE, 8), (Outcome::RefusedGrant, Class::Udp));
    lab.grant.heartbeat.store(START.0 - 2 * JIFFIES_PER_SECOND - 1);
    assert_eq!(lab.udp(REMOTE, 9), Outcome::Admitted);
    assert_eq!(lab.udp(REMOTE, 10), (Outcome::RefusedFallback, Class::Udp));
}

/// Fails when the retried are kept out by a grant that nobody renews.
#[test]
fn without_a_daemon_who_comes_again_is_limited_by_the_fallback_rate_alone() {
    let lab = challenging();
    lab.grant.allowances[Tier::Retried.slot()].limit.store(0);
    lab.grant.heartbeat.store(START.0 - 2 * JIFFIES_PER_SECOND - 1);
    assert_eq!(lab.udp(REMOTE, 5), Outcome::ChallengedBySilence);
    lab.pass_seconds(1);
    assert_eq!(lab.udp(REMOTE, 5), (Outcome::Admitted, Class::Udp, Tier::Retried));
}

/// Fails when the daemon takes strangers for sources that have come again, or the reverse.
#[test]
fn what_is_challenged_counts_for_strangers_and_what_came_again_for_the_retried() {
    let lab = challenging();
    lab.grant.allowances[Tier::Retried.slot()].limit.store(0);
    lab.samples.set(true);
    let outcomes: Vec<Judgement> = (0..2)
        .map(|_| {
            lab.pass_seconds(1);
            lab.udp(REMOTE, 5)
        })
        .collect();
    let [first, again] = outcomes[..] else { panic!("two") };
    assert_eq!(first, (Outcome::ChallengedBySilence, Class::Udp, Tier::Strangers));
    assert_eq!(again, (Outcome::RefusedGrant, Class::Udp, Tier::Retried));
    let tiers: Vec<u32> = lab.offered.borrow().iter().map(|offered| offered.tier).collect();
    assert_eq!(tiers, [Tier::Strangers as u32, Tier::Retried as u32]);
}

/// Fails when a flood of SYNs that are challenged because the calm grant is spent leaves the daemon
/// asleep, or wakes it for each.
#[test]
fn a_syn_challenged_for_a_spent_calm_grant_wakes_the_daemon_once_a_jiffy() {
    let lab = Lab::new();
    lab.grant.allowances[0].limit.store(0);
    let wakes = || [1, 2, 3].map(|port| lab.syn(REMOTE, port).wakes());
    assert_eq!(wakes(), [true, false, false]);
    lab.pass(1);
    assert_eq!(wakes(), [true, false, false]);

    let lab = challenging();
    assert!(!lab.syn(REMOTE, 1).wakes(), "a stage that the daemon chose is no news");
}
