//! Counters: one enum is index, metric label and field name.

use super::policy::Class;

/// Counters in the line.
pub const COUNTERS: usize = 64;

/// The `counters` map's value, one for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// By [`Counter::index`].
    pub values: [u64; COUNTERS],
    /// No counters: tuples that go on (see `recent`), here because every packet looks this value
    /// up anyway.
    pub recent: [u64; RECENT_SLOTS],
    /// No counters either: what is known of the packet that is being judged (see `guard`).
    pub scratch: [u64; SCRATCH_WORDS],
}

/// Slots of [`Counters::recent`]: 16 KiB, half of what the kernel gives a CPU's value
/// (`PCPU_MIN_UNIT_SIZE`).
pub const RECENT_SLOTS: usize = 2048;

/// Words of [`Counters::scratch`].
pub const SCRATCH_WORDS: usize = 16;

/// What happened to a packet. Appended to, never renumbered within a layout version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// New flows seen.
    Seen(Class),
    /// New flows admitted.
    Admitted(Class),
    /// New flows admitted for being on the allow list; counted in `Admitted` too.
    Allowed(Class),
    /// New flows refused: their source asks for more than its ceiling.
    RefusedSource(Class),
    /// New flows refused: the grant is spent.
    RefusedGrant(Class),
    /// New flows refused: no daemon lives and the fallback rate is spent.
    RefusedFallback(Class),
    /// Packets refused: their source is on the deny list.
    RefusedDeny(Class),
    /// SYNs sent again for a tuple just admitted, not charged again.
    Repeated,
    /// Packets of flows that conntrack knows.
    Known,
    /// Packets of no known flow that make no entry (RST, SYN-ACK, FIN, ICMP answers and errors).
    MakesNoEntry,
    /// Later fragments.
    LaterFragment,
    /// ARP, neighbour discovery, DHCP, link-local multicast and what is not IP.
    Exempt,
    /// Frames for a MAC address that is not ours, on a promiscuous port.
    NotOurs,
    /// First fragments without the whole transport header, dropped.
    TinyFragment,
    /// Frames too short for their link header.
    MalformedLink,
    /// IPv4 headers cut short or with impossible fields.
    MalformedIpv4,
    /// IPv6 headers cut short or with impossible fields.
    MalformedIpv6,
    /// TCP headers cut short or with impossible fields.
    MalformedTcp,
    /// UDP headers cut short or with impossible fields.
    MalformedUdp,
    /// ICMP headers cut short.
    MalformedIcmp,
    /// Packets on an interface that has no slot; they pass.
    UnknownInterface,
    /// Wake-ups sent to the daemon.
    Wakeups,
    /// New flows of strangers challenged.
    Challenged(Class),
    /// New flows refused: of a class whose strangers are challenged, by a packet or a source that
    /// cannot be.
    RefusedChallenge(Class),
    /// New flows refused: their prefix asks for more than its limit.
    RefusedPrefix(Class),
    /// New flows refused: their service is asked for more than its limit.
    RefusedService(Class),
    /// Resets that answered a challenge; they end here.
    ChallengeAnswered,
}

impl Counter {
    /// Every counter.
    pub const ALL: [Self; 49] = {
        use Counter::{
            Admitted, Allowed, ChallengeAnswered, Challenged, Exempt, Known, LaterFragment,
            MakesNoEntry, MalformedIcmp, MalformedIpv4, MalformedIpv6, MalformedLink, MalformedTcp,
            MalformedUdp, NotOurs, RefusedChallenge, RefusedDeny, RefusedFallback, RefusedGrant,
            RefusedPrefix, RefusedService, RefusedSource, Repeated, Seen, TinyFragment,
            UnknownInterface, Wakeups,
        };
        [
            Seen(Class::Tcp),
            Seen(Class::Udp),
            Seen(Class::Other),
            Admitted(Class::Tcp),
            Admitted(Class::Udp),
            Admitted(Class::Other),
            Allowed(Class::Tcp),
            Allowed(Class::Udp),
            Allowed(Class::Other),
            RefusedSource(Class::Tcp),
            RefusedSource(Class::Udp),
            RefusedSource(Class::Other),
            RefusedGrant(Class::Tcp),
            RefusedGrant(Class::Udp),
            RefusedGrant(Class::Other),
            RefusedFallback(Class::Tcp),
            RefusedFallback(Class::Udp),
            RefusedFallback(Class::Other),
            RefusedDeny(Class::Tcp),
            RefusedDeny(Class::Udp),
            RefusedDeny(Class::Other),
            Repeated,
            Known,
            MakesNoEntry,
            LaterFragment,
            Exempt,
            NotOurs,
            TinyFragment,
            MalformedLink,
            MalformedIpv4,
            MalformedIpv6,
            MalformedTcp,
            MalformedUdp,
            MalformedIcmp,
            UnknownInterface,
            Wakeups,
            Challenged(Class::Tcp),
            Challenged(Class::Udp),
            Challenged(Class::Other),
            RefusedChallenge(Class::Tcp),
            RefusedChallenge(Class::Udp),
            RefusedChallenge(Class::Other),
            RefusedPrefix(Class::Tcp),
            RefusedPrefix(Class::Udp),
            RefusedPrefix(Class::Other),
            RefusedService(Class::Tcp),
            RefusedService(Class::Udp),
            RefusedService(Class::Other),
            ChallengeAnswered,
        ]
    };

    /// Where it lies in [`Counters::values`].
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Seen(class) => class as u32,
            Self::Admitted(class) => 3 + class as u32,
            Self::Allowed(class) => 6 + class as u32,
            Self::RefusedSource(class) => 9 + class as u32,
            Self::RefusedGrant(class) => 12 + class as u32,
            Self::RefusedFallback(class) => 15 + class as u32,
            Self::RefusedDeny(class) => 18 + class as u32,
            Self::Repeated => 21,
            Self::Known => 22,
            Self::MakesNoEntry => 23,
            Self::LaterFragment => 24,
            Self::Exempt => 25,
            Self::NotOurs => 26,
            Self::TinyFragment => 27,
            Self::MalformedLink => 28,
            Self::MalformedIpv4 => 29,
            Self::MalformedIpv6 => 30,
            Self::MalformedTcp => 31,
            Self::MalformedUdp => 32,
            Self::MalformedIcmp => 33,
            Self::UnknownInterface => 34,
            Self::Wakeups => 35,
            Self::Challenged(class) => 36 + class as u32,
            Self::RefusedChallenge(class) => 39 + class as u32,
            Self::RefusedPrefix(class) => 42 + class as u32,
            Self::RefusedService(class) => 45 + class as u32,
            Self::ChallengeAnswered => 48,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_dense_and_fit_the_line() {
        for (position, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter.index() as usize, position, "{counter:?}");
        }
        assert!(Counter::ALL.len() <= COUNTERS);
    }
}
