//! The outcomes of packets. A row of [`TABLE`] has all that follows from an outcome: the action on
//! the packet, its group of counters, and its name in status, trace and simulation.

/// The outcome of a packet. A new one goes to the end, with a row at the end of [`TABLE`]: the
/// numbers are those of the counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// A new flow, admitted.
    #[default]
    Admitted,
    /// A new flow of a stranger: its SYN was answered by a challenge ACK.
    ChallengedByAck,
    /// A new flow of a stranger, dropped; it is admitted if it comes again.
    ChallengedBySilence,
    /// A new flow whose source is above its ceiling or its share.
    RefusedSource,
    /// A new flow for which there is no grant left.
    RefusedGrant,
    /// A new flow above the fallback rate, while the daemon is dead.
    RefusedFallback,
    /// A packet of a source on the deny list.
    Denied,
    /// A new flow that would be challenged, but whose packet cannot be.
    RefusedChallenge,
    /// A new flow whose prefix is above its limit.
    RefusedPrefix,
    /// A new flow whose service is above its limit.
    RefusedService,
    /// A repeated SYN of a tuple just admitted, not charged again.
    Repeated,
    /// A packet of a flow that conntrack knows.
    Known,
    /// A packet of no known flow that makes no entry: RST, SYN-ACK, FIN, ICMP replies and errors.
    MakesNoEntry,
    /// A later fragment.
    LaterFragment,
    /// ARP, neighbour discovery, DHCP, link-local multicast and what is not IP.
    Exempt,
    /// A frame for another station's MAC address, which this network namespace does not track: on a
    /// promiscuous port, or across a bridge that netfilter does not see.
    NotOurs,
    /// A first fragment without the whole transport header.
    TinyFragment,
    /// A frame too short for its link header.
    MalformedLink,
    /// An IPv4 header that is cut short or has impossible fields.
    MalformedIpv4,
    /// An IPv6 header that is cut short or has impossible fields.
    MalformedIpv6,
    /// A TCP header that is cut short or has impossible fields.
    MalformedTcp,
    /// A UDP header that is cut short or has impossible fields.
    MalformedUdp,
    /// An ICMP header that is cut short.
    MalformedIcmp,
    /// A new flow on an interface that has no slot.
    UnknownInterface,
    /// A RST that answered a challenge.
    ChallengeAnswered,
    /// A new flow of a stranger: its DNS query was answered by a truncated reply; it is admitted if it
    /// comes again.
    ChallengedByTruncation,
}

/// What happens to a packet, numbered as in `enum xdp_action`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drops it.
    Drop = 1,
    /// Passes it to the stack.
    Pass = 2,
    /// Sends it back, overwritten by an answer.
    Answer = 3,
}

/// How an outcome is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// New flows admitted, by class.
    Admitted,
    /// New flows challenged, by class.
    Challenged,
    /// New flows and packets refused, by class and reason.
    Refused,
    /// Packets without a class.
    Packet,
}

/// All that follows from an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The outcome.
    pub outcome: Outcome,
    /// Its name in JSON, in the trace and in reports.
    pub label: &'static str,
    /// How it is reported.
    pub group: Group,
    /// What happens to the packet, except in a dry run.
    pub action: Action,
    /// Whether it counts as a new flow seen.
    pub is_new_flow: bool,
}

const fn flow(outcome: Outcome, label: &'static str, group: Group, action: Action) -> Row {
    Row { outcome, label, group, action, is_new_flow: true }
}

const fn packet(outcome: Outcome, label: &'static str, action: Action) -> Row {
    Row { outcome, label, group: Group::Packet, action, is_new_flow: false }
}

/// Every outcome, in the order of its numbers.
pub const TABLE: &[Row] = {
    use Action::{Answer, Drop, Pass};
    use Group::{Admitted, Challenged, Refused};
    &[
        flow(Outcome::Admitted, "admitted", Admitted, Pass),
        flow(Outcome::ChallengedByAck, "challenge", Challenged, Answer),
        flow(Outcome::ChallengedBySilence, "challenge", Challenged, Drop),
        flow(Outcome::RefusedSource, "source", Refused, Drop),
        flow(Outcome::RefusedGrant, "grant", Refused, Drop),
        flow(Outcome::RefusedFallback, "fallback", Refused, Drop),
        Row { is_new_flow: false, ..flow(Outcome::Denied, "deny", Refused, Drop) },
        flow(Outcome::RefusedChallenge, "challenge", Refused, Drop),
        flow(Outcome::RefusedPrefix, "prefix", Refused, Drop),
        flow(Outcome::RefusedService, "service", Refused, Drop),
        packet(Outcome::Repeated, "repeated", Pass),
        packet(Outcome::Known, "known", Pass),
        packet(Outcome::MakesNoEntry, "makes_no_entry", Pass),
        packet(Outcome::LaterFragment, "later_fragment", Pass),
        packet(Outcome::Exempt, "exempt", Pass),
        packet(Outcome::NotOurs, "not_ours", Pass),
        packet(Outcome::TinyFragment, "tiny_fragment", Drop),
        packet(Outcome::MalformedLink, "malformed_link", Pass),
        packet(Outcome::MalformedIpv4, "malformed_ipv4", Pass),
        packet(Outcome::MalformedIpv6, "malformed_ipv6", Pass),
        packet(Outcome::MalformedTcp, "malformed_tcp", Pass),
        packet(Outcome::MalformedUdp, "malformed_udp", Pass),
        packet(Outcome::MalformedIcmp, "malformed_icmp", Pass),
        packet(Outcome::UnknownInterface, "unknown_interface", Pass),
        packet(Outcome::ChallengeAnswered, "challenge_answered", Drop),
        flow(Outcome::ChallengedByTruncation, "challenge", Challenged, Answer),
    ]
};

impl Outcome {
    /// Outcomes of frames with a header that is cut short or has impossible fields.
    pub const MALFORMED: [Self; 6] = [
        Self::MalformedLink,
        Self::MalformedIpv4,
        Self::MalformedIpv6,
        Self::MalformedTcp,
        Self::MalformedUdp,
        Self::MalformedIcmp,
    ];

    /// Its row.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// A set of outcomes, for the data path: the verifier would have to follow a lookup in the table.
#[derive(Clone, Copy)]
pub struct Outcomes(u64);

impl Outcomes {
    /// Outcomes whose packet is answered.
    pub const ANSWERED: Self = Self::with(Some(Action::Answer), None);
    /// Outcomes whose packet passes.
    pub const PASSED: Self = Self::with(Some(Action::Pass), None);
    /// Outcomes without a class.
    pub const WITHOUT_CLASS: Self = Self::with(None, Some(Group::Packet));

    const fn with(action: Option<Action>, group: Option<Group>) -> Self {
        let (mut bits, mut position) = (0, 0);
        while position < TABLE.len() {
            let row = &TABLE[position];
            assert!(row.outcome as usize == position, "rows are in the order of the numbers");
            let has_action = match action {
                Some(action) => row.action as u32 == action as u32,
                None => true,
            };
            let is_of_group = match group {
                Some(group) => row.group as u32 == group as u32,
                None => true,
            };
            if has_action && is_of_group {
                bits |= 1 << row.outcome as u32;
            }
            position += 1;
        }
        Self(bits)
    }

    /// Whether it holds the outcome of this number.
    #[inline(always)]
    pub const fn holds(self, number: u32) -> bool {
        self.0 >> (number & 63) & 1 != 0
    }
}
