//! What each of conntrack's timeouts should be: doctor judges by these rules, and tune sets what
//! they say.

use super::{finding::Severity, role::Role};

const KEYS: &str = "net.netfilter.nf_conntrack_";
const DAY: u64 = 86_400;
/// The least that RFC 5382 (REQ-5) allows a NAT: 2 hours 4 minutes.
const RFC_5382: u64 = 7440;

#[derive(Debug)]
pub struct TimeoutRule {
    /// Without [`KEYS`].
    name: &'static str,
    /// How bad a shorter one is, the shortest first, and why.
    least: &'static [(u64, Severity)],
    short: &'static str,
    /// How bad a longer one is, and why.
    most: Option<u64>,
    long_is: Severity,
    long: &'static str,
    /// What `ctguard tune` sets in place of a value beyond the limits.
    set: Set,
}

#[derive(Clone, Copy, Debug)]
enum Set {
    Nothing,
    NearestLimit,
    Seconds(u64),
}

#[derive(Debug)]
pub struct WrongTimeout {
    pub severity: Severity,
    pub why: &'static str,
    pub should_be: u64,
}

impl TimeoutRule {
    /// No more than a note: somebody chose a longer value than the kernel's.
    const fn at_most(name: &'static str, seconds: u64, long: &'static str) -> Self {
        let most = Some(seconds);
        let (least, short, long_is): (&[_], _, _) = (&[], "", Severity::Note);
        Self { name, least, short, most, long_is, long, set: Set::Nothing }
    }

    const fn at_least(self, least: &'static [(u64, Severity)], short: &'static str) -> Self {
        Self { least, short, ..self }
    }

    const fn tuned(self, set: Set) -> Self {
        Self { set, ..self }
    }

    pub fn key(&self) -> String {
        format!("{KEYS}{}", self.name)
    }

    pub const fn is_tuned(&self) -> bool {
        !matches!(self.set, Set::Nothing)
    }

    pub fn judge(&self, seconds: u64, role: Role) -> Option<WrongTimeout> {
        let (severity, why, limit) =
            if let Some((_, severity)) = self.least.iter().find(|(least, _)| seconds < *least) {
                (*severity, self.short, self.least.last()?.0)
            } else {
                let most = self.most(role).filter(|most| seconds > *most)?;
                (self.long_is(seconds, role), self.long, most)
            };
        let should_be = match self.set {
            Set::Seconds(seconds) => seconds,
            Set::Nothing | Set::NearestLimit => limit,
        };
        Some(WrongTimeout { severity, why, should_be })
    }

    fn is_established(&self) -> bool {
        self.name == ESTABLISHED
    }

    /// A NAT router forgets dead connections as early as the RFC lets it, as `OpenWrt` does.
    fn most(&self, role: Role) -> Option<u64> {
        let is_nat = self.is_established() && role == Role::NatRouter;
        if is_nat { Some(RFC_5382) } else { self.most }
    }

    /// A server knows when its own peers are gone; a router does not. Up to a day is somebody's choice.
    fn long_is(&self, seconds: u64, role: Role) -> Severity {
        let forwards = self.is_established() && role != Role::Server;
        if forwards && seconds > DAY { Severity::Warning } else { self.long_is }
    }
}

/// The timeout of established connections, and what tune gives a NAT router, the least of all roles.
pub(super) fn shortest_established() -> (String, u64) {
    let rule = &TIMEOUTS[0];
    (rule.key(), rule.most(Role::NatRouter).unwrap_or(RFC_5382))
}

/// What tune would make of a setting that has this value.
pub(super) fn fitting(key: &str, seconds: u64, role: Role) -> u64 {
    let tuned = TIMEOUTS.iter().find(|it| it.is_tuned() && it.key() == key);
    tuned.and_then(|it| it.judge(seconds, role)).map_or(seconds, |wrong| wrong.should_be)
}

const ESTABLISHED: &str = "tcp_timeout_established";
const TEN_SECONDS: &[(u64, Severity)] = &[(10, Severity::Warning)];

/// All rules; those that tune sets come first.
pub const TIMEOUTS: [TimeoutRule; 17] = [
    TimeoutRule::at_most(
        ESTABLISHED,
        DAY,
        "a connection whose peers disappeared keeps its entry this long; RFC 5382 asks a NAT for at \
         least 7440 s",
    )
    .at_least(
        &[(300, Severity::Fault), (RFC_5382, Severity::Warning)],
        "connections that are idle for longer break: TCP keepalive starts after two hours, and RFC \
         5382 asks a NAT for at least 7440 s",
    )
    .tuned(Set::NearestLimit),
    TimeoutRule::at_most(
        "tcp_timeout_syn_sent",
        60,
        "an unanswered SYN keeps its entry this long, and a port scan sends thousands",
    )
    .at_least(TEN_SECONDS, "clients repeat a SYN after 1, 3 and 7 s")
    .tuned(Set::Seconds(60)),
    TimeoutRule::at_most(
        "tcp_timeout_time_wait",
        60,
        "closed connections make up most of a busy table",
    )
    .tuned(Set::NearestLimit),
    TimeoutRule {
        long_is: Severity::Warning,
        ..TimeoutRule::at_most(
            "udp_timeout",
            180,
            "every datagram that nobody answers, forged ones included, keeps its entry this long",
        )
    }
    .at_least(TEN_SECONDS, "a reply that takes longer finds no entry")
    .tuned(Set::Seconds(30)),
    TimeoutRule {
        long_is: Severity::Warning,
        ..TimeoutRule::at_most(
            "udp_timeout_stream",
            180,
            "every UDP conversation keeps its entry this long after its last packet",
        )
    }
    .at_least(
        &[(120, Severity::Warning)],
        "QUIC, WireGuard and calls break; RFC 4787 (REQ-5) asks a NAT for at least 120 s",
    )
    .tuned(Set::Seconds(120)),
    TimeoutRule::at_most("generic_timeout", 120, "applies to protocols unknown to conntrack")
        .tuned(Set::NearestLimit),
    TimeoutRule::at_most(
        "tcp_timeout_syn_recv",
        60,
        "a handshake that the client gave up keeps its entry this long",
    )
    .at_least(TEN_SECONDS, "servers repeat a SYN-ACK after 1, 3 and 7 s"),
    TimeoutRule::at_most(
        "tcp_timeout_fin_wait",
        120,
        "a connection that one side closed keeps its entry this long",
    ),
    TimeoutRule::at_most(
        "tcp_timeout_close_wait",
        3600,
        "kube-proxy sets an hour, for servers that close late",
    ),
    TimeoutRule::at_most("tcp_timeout_last_ack", 30, "both sides have closed; one ACK is missing"),
    TimeoutRule::at_most("tcp_timeout_close", 10, "a connection that was reset is over"),
    TimeoutRule::at_most(
        "tcp_timeout_unacknowledged",
        300,
        "the peer stopped acknowledging data and is most likely gone",
    ),
    TimeoutRule::at_most(
        "tcp_timeout_max_retrans",
        300,
        "one segment was sent three times: the peer is most likely gone",
    ),
    TimeoutRule::at_most("icmp_timeout", 30, "every ping with a new identifier is an entry"),
    TimeoutRule::at_most("icmpv6_timeout", 30, "every ping with a new identifier is an entry"),
    TimeoutRule::at_most("gre_timeout", 30, "applies to unreplied GRE"),
    TimeoutRule::at_most("gre_timeout_stream", 180, "applies to GRE tunnels that fell silent"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 3] = [Role::NatRouter, Role::Gateway, Role::Server];

    /// Fails when doctor finds fault with what tune has set.
    #[test]
    fn every_rule_is_content_with_what_it_asks_for() {
        for rule in &TIMEOUTS {
            for role in ROLES {
                for seconds in [0, 1, 5, 60, 121, 600, 7441, 432_000] {
                    let Some(wrong) = rule.judge(seconds, role) else { continue };
                    assert!(rule.judge(wrong.should_be, role).is_none(), "{rule:?} {seconds}");
                }
            }
        }
    }

    #[test]
    fn every_rule_is_quiet_at_its_limits_and_speaks_beyond_them() {
        for rule in &TIMEOUTS {
            for role in ROLES {
                for &(least, severity) in rule.least {
                    assert_eq!(rule.judge(least - 1, role).unwrap().severity, severity);
                }
                let least = rule.least.last().map_or(0, |(least, _)| *least);
                assert!(rule.judge(least, role).is_none(), "{rule:?}");
                let Some(most) = rule.most(role) else { continue };
                assert!(rule.judge(most, role).is_none(), "{rule:?}");
                assert!(rule.judge(most + 1, role).is_some(), "{rule:?}");
            }
        }
    }
}
