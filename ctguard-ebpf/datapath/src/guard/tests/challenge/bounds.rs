//! What an answer and a retry are good for, and what they are not.

use super::*;
use crate::memory::Moment;

/// One flow at once, and none for a long time.
const ONE: Ceiling = Ceiling { interval: Ticks(1 << 40), tolerance: Ticks(0) };

/// Fails when an answer opens flow after flow while it is remembered.
#[test]
fn an_answer_opens_one_flow() {
    let lab = challenging();
    for port in 1000..1040 {
        assert_eq!(lab.syn(REMOTE, port), ASKED);
        assert_eq!(reset(&lab, port, lab.cookie.get().unwrap()), Outcome::ChallengeAnswered);
        assert_eq!(lab.syn(REMOTE, port), ANSWERED);
        // Longer than a retransmission is taken for one, and shorter than an answer lasts.
        lab.pass_seconds(6);
        assert_eq!(lab.syn(REMOTE, port), ASKED, "port {port}");
        lab.pass_seconds(1);
    }
}

/// Fails when what a source opened as a stranger is forgotten once its datagrams come twice.
#[test]
fn a_datagram_that_comes_again_counts_with_the_flows_of_before() {
    let mut lab = challenging();
    let stages = std::mem::take(&mut lab.limits.stages);
    lab.interface.ceilings = [ONE; CLASS_SLOTS];
    assert_eq!(lab.udp(REMOTE, 1), (Outcome::Admitted, Class::Udp));
    lab.limits.stages = stages;
    assert_eq!(lab.udp(REMOTE, 2), TO_COME_AGAIN);
    lab.pass_seconds(1);
    assert_eq!(lab.udp(REMOTE, 2), (Outcome::RefusedSource, Class::Udp));
}

/// Fails when a flood that the daemon knows of wakes it with each packet.
#[test]
fn what_is_challenged_outside_calm_wakes_nobody() {
    let lab = challenging();
    lab.grant.allowances[0].limit.store(0);
    assert!(!lab.syn(REMOTE, 1).wakes());
    let segment = lab.tcp(REMOTE, 2, TcpFlags::ACK);
    assert_eq!(segment, (Outcome::RefusedChallenge, Class::Tcp));
    assert!(!segment.wakes());
}

#[test]
fn a_query_that_cannot_be_truncated_has_to_come_again() {
    let mut lab = challenging();
    lab.policy.switches = Policy::DNS;
    lab.truncates = [false, true];
    let of_ipv4 = |lab: &Lab, port| lab.judge(&udp(REMOTE, LOCAL, port, 53)).outcome();
    assert_eq!(of_ipv4(&lab, 5), Outcome::ChallengedBySilence);
    let of_ipv6 = lab.judge(&udp("2001:db8::1", "2001:db8:ffff::1", 5, 53));
    assert_eq!(of_ipv6, (Outcome::ChallengedByTruncation, Class::Udp));
    lab.policy.switches |= Policy::DRY_RUN;
    lab.pass_seconds(20);
    assert_eq!(of_ipv4(&lab, 6), Outcome::ChallengedByTruncation, "nothing is written");
}

/// Fails when packets sent in a known source's name open its flows once no challenge is answered.
#[test]
fn above_its_limit_a_known_source_that_only_comes_again_is_served_with_the_retried() {
    let mut lab = challenging();
    know(&lab, 0xc000_0201, Tiers::PROVEN);
    lab.interface.ceilings = [ONE; CLASS_SLOTS];
    lab.environment.operator.answers = 1;
    assert_eq!(lab.syn(REMOTE, 1), (Outcome::Admitted, Class::Tcp, Tier::Proven));
    let ask = || {
        let unit = Moment::at(*lab.now.borrow(), lab.environment.daemon.memory_shift);
        lab.grant.answers.store(u64::from(unit.0) << 32 | 1);
        lab.syn(REMOTE, 2)
    };
    assert_eq!(ask(), (Outcome::ChallengedBySilence, Class::Tcp));
    lab.pass_seconds(1);
    assert_eq!(ask(), (Outcome::Admitted, Class::Tcp, Tier::Retried));
}
