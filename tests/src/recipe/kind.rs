//! The floods of the lab: what each is called and what its packets carry.

use std::fmt;

use clap::ValueEnum;

use super::layout::STRANDS;
use crate::addresses::{DROPPED_PORT, EXPOSED_PORTS, FLOOD_PORT, Family, UNEXPOSED_PORTS};

/// The floods of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FloodKind {
    /// TCP SYNs from one address, all source ports.
    SynOneSource,
    /// TCP SYNs from 2^28 addresses.
    SynSpoofed,
    /// UDP from one address, all source ports.
    UdpOneSource,
    /// UDP from 2^28 addresses.
    UdpSpoofed,
    /// The four above in turn.
    Mixed,
    /// ICMP echo requests from 2^28 addresses, random identifiers.
    Icmp,
    /// TCP SYNs from 2^28 addresses, each in two IPv4 fragments, the first cut after 8 bytes of
    /// the TCP header.
    TinyFragments,
    /// TCP SYNs from 2^28 /64s behind 16 IPv6 extension headers; implies --ipv6.
    LongExtensions,
    /// TCP ACKs of no connection, from 2^28 addresses; conntrack takes them up (`tcp_loose`).
    Ack,
    /// TCP ACKs of no connection, from one address.
    AckOneSource,
    /// SCTP INITs from 2^28 addresses.
    Sctp,
    /// What looks like answers: UDP from ports 53 and 123 of 2^28 addresses to the router's own
    /// address and ports as masquerade gives them, which the router forwards to an exposed host.
    UdpAnswers,
}

impl FloodKind {
    /// The one family that the flood can have, if it cannot have both.
    #[must_use]
    pub fn only_family(self) -> Option<Family> {
        use Segment::{Fragment, SynBehindExtensions};
        self.strands().iter().find_map(|(segment, _)| match segment {
            Fragment(_) => Some(Family::Ipv4),
            SynBehindExtensions => Some(Family::Ipv6),
            Segment::Syn
            | Segment::Ack
            | Segment::Udp
            | Segment::Echo
            | Segment::Sctp
            | Segment::Answer(_) => None,
        })
    }

    /// The port that its packets go at, the first where they go at many: one that the router
    /// forwards, or one that its rules drop. None where packets have no port.
    #[must_use]
    pub fn port(self, dropped: bool) -> Option<u16> {
        let (forwarded, refused) = match self {
            Self::Icmp => return None,
            Self::UdpAnswers => (EXPOSED_PORTS.0, UNEXPOSED_PORTS.0),
            Self::SynOneSource
            | Self::SynSpoofed
            | Self::UdpOneSource
            | Self::UdpSpoofed
            | Self::Mixed
            | Self::TinyFragments
            | Self::LongExtensions
            | Self::Ack
            | Self::AckOneSource
            | Self::Sctp => (FLOOD_PORT, DROPPED_PORT),
        };
        Some(if dropped { refused } else { forwarded })
    }

    /// Whether each of its frames shows one destination port where TCP and UDP usually have it.
    #[must_use]
    pub fn shows_port(self) -> bool {
        use Segment::{Ack, Sctp, Syn, Udp};
        self.strands().iter().all(|(segment, _)| matches!(segment, Syn | Ack | Udp | Sctp))
    }

    pub(super) fn strands(self) -> [(Segment, Sources); STRANDS] {
        use Segment::{Ack, Answer, Echo, Fragment, Sctp, Syn, SynBehindExtensions, Udp};
        use Sources::{One, Spoofed};
        const DNS: u16 = 53;
        const NTP: u16 = 123;
        match self {
            Self::SynOneSource => [(Syn, One); STRANDS],
            Self::SynSpoofed => [(Syn, Spoofed); STRANDS],
            Self::UdpOneSource => [(Udp, One); STRANDS],
            Self::UdpSpoofed => [(Udp, Spoofed); STRANDS],
            Self::Mixed => [(Syn, One), (Udp, Spoofed), (Udp, One), (Syn, Spoofed)],
            Self::Icmp => [(Echo, Spoofed); STRANDS],
            Self::TinyFragments => {
                let [head, rest] = [Part::Head, Part::Rest].map(|part| (Fragment(part), Spoofed));
                [head, rest, head, rest]
            }
            Self::LongExtensions => [(SynBehindExtensions, Spoofed); STRANDS],
            Self::Ack => [(Ack, Spoofed); STRANDS],
            Self::AckOneSource => [(Ack, One); STRANDS],
            Self::Sctp => [(Sctp, Spoofed); STRANDS],
            Self::UdpAnswers => [DNS, NTP, DNS, NTP].map(|port| (Answer(port), Spoofed)),
        }
    }
}

impl fmt::Display for FloodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => fmt::Debug::fmt(self, f),
        }
    }
}

/// What one frame of a flood carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Syn,
    Ack,
    Udp,
    /// ICMP echo request.
    Echo,
    /// A SYN's fragment.
    Fragment(Part),
    /// A SYN behind [`super::frame::EXTENSION_HEADERS`] IPv6 extension headers.
    SynBehindExtensions,
    /// SCTP INIT.
    Sctp,
    /// UDP from this port.
    Answer(u16),
}

/// Which part of a packet in two fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Head,
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    One,
    Spoofed,
}
