//! The short way. [`Lab::judge`] compares it with the long one, in all tests.

use std::{format, string::String};

use super::{
    super::{Judgement, Outcome},
    exact::exact,
    lab::{LOCAL, Lab, REMOTE, is_refused, syn, tcp, udp},
};
use crate::{
    layout::{List, Policy, STATIONS, Stage},
    packet::{TcpFlags, reader::testing::AlignedFrame},
};

fn plainly(lab: &Lab, frame: &[u8]) -> Judgement {
    lab.judge(frame);
    lab.judge_plain(&AlignedFrame::new(frame))
}

#[test]
fn a_packet_of_a_flow_just_seen_takes_the_short_way() {
    let lab = exact();
    lab.conntrack.borrow_mut().push((0xc000_0201, 5 << 16 | 9));
    lab.leave(&udp(LOCAL, REMOTE, 9, 5));
    let datagram = udp(REMOTE, LOCAL, 5, 9);
    // The first finds it in conntrack, the second in the flow cache.
    lab.judge(&datagram);
    assert_eq!(plainly(&lab, &datagram), Outcome::Known);
}

#[test]
fn a_flood_takes_the_short_way_unless_it_is_answered() {
    let mut lab = exact();
    lab.grant.allowances[0].limit.store(0);
    let refused = |lab: &Lab, frame: &[u8]| is_refused_plainly(plainly(lab, frame));
    assert!(refused(&lab, &udp(REMOTE, LOCAL, 5, 9)));
    assert!(refused(&lab, &tcp(REMOTE, LOCAL, 5, 80, TcpFlags::ACK)));
    assert!(!refused(&lab, &syn(REMOTE, LOCAL, 5)));
    lab.interface.answers_nothing = 1;
    assert!(refused(&lab, &syn(REMOTE, LOCAL, 5)));
    lab.policy.switches = Policy::DRY_RUN;
    assert!(!refused(&lab, &udp(REMOTE, LOCAL, 5, 9)));
}

#[test]
fn what_a_list_of_allowed_sources_lacks_still_takes_the_short_way() {
    let mut lab = exact();
    lab.grant.allowances[0].limit.store(0);
    lab.list(List::AllowV4, REMOTE, 0);
    lab.list(List::FeedAllowV4, "192.0.2.9", 0);
    let refused = |source: &str| is_refused_plainly(plainly(&lab, &udp(source, LOCAL, 5, 9)));
    assert!(refused("192.0.2.2"));
    assert!(!refused(REMOTE) && !refused("192.0.2.9"));
}

/// Fails when a capture shows nothing of a flood.
#[test]
fn what_a_capture_is_to_show_takes_the_long_way() {
    let mut lab = exact();
    lab.grant.allowances[0].limit.store(0);
    let datagram = udp(REMOTE, LOCAL, 5, 9);
    assert!(is_refused_plainly(plainly(&lab, &datagram)));
    lab.environment.capture.until = lab.now.borrow().0 + 1;
    assert!(plainly(&lab, &datagram).is_undecided());
}

fn is_refused_plainly(judgement: Judgement) -> bool {
    !judgement.is_undecided() && is_refused(judgement)
}

/// Fails when the two ways part in any state of the guard: [`Lab::judge`] compares them.
#[test]
fn random_packets_in_random_states_have_one_judgement() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u32| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        u32::try_from(random >> 33).unwrap() % below
    };
    let mut short = 0;
    for _ in 0..400 {
        let mut lab = exact();
        lab.environment.daemon.known_complete = u32::from(next(8) != 0);
        lab.environment.daemon.tcp_loose = u32::from(next(4) != 0);
        lab.environment.daemon.learning_until = u64::from(next(4) / 3) * 2_000_000;
        lab.interface.answers_nothing = next(2);
        lab.unknown_interface = next(8) == 0;
        lab.policy.switches = [0, 0, 0, Policy::DRY_RUN, Policy::FAIL_OPEN][next(5) as usize];
        lab.grant.allowances[0].limit.store([0, 1, 20, 1000][next(4) as usize]);
        let stages = [Stage::Calm, Stage::Fair, Stage::Challenge];
        lab.limits.stages = std::array::from_fn(|_| stages[next(3) as usize] as u32);
        lab.limits.tiers_in_use = u32::from(lab.limits.stages[..3] != [0; 3]);
        if next(4) == 0 {
            lab.grant.heartbeat.store(0);
        }
        if next(8) == 0 {
            lab.environment.daemon.stations_in_use = 1;
            lab.interface.stations = [0x0202_0202_0202; STATIONS];
        }
        for number in 0..100 {
            // Sources are listed while their flows go on.
            if number % 50 == 25 {
                let lists = [List::AllowV4, List::DenyV4, List::FeedAllowV4, List::FeedDenyV4];
                if let Some(list) = lists.get(next(8) as usize) {
                    lab.list(*list, &format!("192.0.2.{}", next(4)), 0);
                }
            }
            let source: String = format!("192.0.2.{}", next(4));
            let (port, to) = (60 + next(10), [9, 67, 520][next(3) as usize]);
            let local = [LOCAL, LOCAL, LOCAL, "224.0.0.9"][next(4) as usize];
            let frame = match next(3) {
                0 => syn(&source, local, port),
                1 => tcp(&source, local, port, 80, next(64)),
                _ => udp(&source, local, port, to),
            };
            short += u32::from(!plainly(&lab, &frame).is_undecided());
            if next(10) == 0 {
                lab.leave(&udp(LOCAL, &source, u32::from(to), u16::try_from(port).unwrap()));
                lab.conntrack.borrow_mut().push((0xc000_0200 | 2, port << 16 | u32::from(to)));
            }
        }
    }
    assert!(short > 2_000, "only {short} packets took the short way");
}
