//! The counters as documents.

use ctguard_layout::{Class, Counter};
use serde::Serialize;

use ctguard_kernel::maps::Totals;

/// By class, and what is of no class.
#[derive(Debug, Serialize)]
pub(super) struct CounterReport {
    pub(super) tcp: ClassCounters,
    pub(super) udp: ClassCounters,
    pub(super) other: ClassCounters,
    pub(super) packets: PacketCounters,
}

/// New flows of one class.
#[derive(Debug, Serialize)]
pub(super) struct ClassCounters {
    pub(super) seen: u64,
    pub(super) admitted: u64,
    pub(super) allowed: u64,
    /// Answered or dropped, to come again if somebody is there.
    pub(super) challenged: u64,
    pub(super) refused: RefusedCounters,
}

#[derive(Debug, Serialize)]
pub(super) struct RefusedCounters {
    pub(super) source: u64,
    pub(super) grant: u64,
    pub(super) fallback: u64,
    pub(super) deny: u64,
    /// Of a class whose strangers are challenged, by a packet or a source that cannot be.
    pub(super) challenge: u64,
    pub(super) prefix: u64,
    pub(super) service: u64,
}

/// Packets that are no new flow of a class.
#[derive(Debug, Serialize)]
pub(super) struct PacketCounters {
    pub(super) repeated: u64,
    pub(super) known: u64,
    pub(super) makes_no_entry: u64,
    pub(super) later_fragment: u64,
    pub(super) exempt: u64,
    pub(super) not_ours: u64,
    pub(super) tiny_fragment: u64,
    pub(super) malformed_link: u64,
    pub(super) malformed_ipv4: u64,
    pub(super) malformed_ipv6: u64,
    pub(super) malformed_tcp: u64,
    pub(super) malformed_udp: u64,
    pub(super) malformed_icmp: u64,
    pub(super) unknown_interface: u64,
    pub(super) wakeups: u64,
    /// Resets that answered a challenge.
    pub(super) challenge_answered: u64,
}

impl CounterReport {
    pub(super) fn new(totals: &Totals) -> Self {
        Self {
            tcp: ClassCounters::new(totals, Class::Tcp),
            udp: ClassCounters::new(totals, Class::Udp),
            other: ClassCounters::new(totals, Class::Other),
            packets: PacketCounters::new(totals),
        }
    }
}

impl ClassCounters {
    fn new(totals: &Totals, class: Class) -> Self {
        Self {
            seen: totals.get(Counter::Seen(class)),
            admitted: totals.get(Counter::Admitted(class)),
            allowed: totals.get(Counter::Allowed(class)),
            challenged: totals.get(Counter::Challenged(class)),
            refused: RefusedCounters {
                source: totals.get(Counter::RefusedSource(class)),
                grant: totals.get(Counter::RefusedGrant(class)),
                fallback: totals.get(Counter::RefusedFallback(class)),
                deny: totals.get(Counter::RefusedDeny(class)),
                challenge: totals.get(Counter::RefusedChallenge(class)),
                prefix: totals.get(Counter::RefusedPrefix(class)),
                service: totals.get(Counter::RefusedService(class)),
            },
        }
    }
}

impl PacketCounters {
    fn new(totals: &Totals) -> Self {
        Self {
            repeated: totals.get(Counter::Repeated),
            known: totals.get(Counter::Known),
            makes_no_entry: totals.get(Counter::MakesNoEntry),
            later_fragment: totals.get(Counter::LaterFragment),
            exempt: totals.get(Counter::Exempt),
            not_ours: totals.get(Counter::NotOurs),
            tiny_fragment: totals.get(Counter::TinyFragment),
            malformed_link: totals.get(Counter::MalformedLink),
            malformed_ipv4: totals.get(Counter::MalformedIpv4),
            malformed_ipv6: totals.get(Counter::MalformedIpv6),
            malformed_tcp: totals.get(Counter::MalformedTcp),
            malformed_udp: totals.get(Counter::MalformedUdp),
            malformed_icmp: totals.get(Counter::MalformedIcmp),
            unknown_interface: totals.get(Counter::UnknownInterface),
            wakeups: totals.get(Counter::Wakeups),
            challenge_answered: totals.get(Counter::ChallengeAnswered),
        }
    }
}
