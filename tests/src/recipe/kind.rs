//! The floods of the lab: what each is called and what its packets carry.

use std::{fmt, time::Duration};

use clap::ValueEnum;

use super::{Rate, Sources, layout::STRANDS};
use crate::addresses::{
    CROWD_PORT, DROPPED_PORT, EXPOSED_PORTS, FLOOD_PORT, Family, HOLD_PORT, UNEXPOSED_PORTS,
};

/// Between a SYN and the same again from a sender that hopes to pass for a client.
const REPEATED_AFTER: Duration = Duration::from_millis(50);
/// Between a challenge and the SYN that follows it; a Linux client takes some 10 ms.
const CHALLENGED_AFTER: Duration = Duration::from_millis(12);
/// How long many hold a connection before they close it.
const HELD_FOR: Duration = Duration::from_secs(30);
/// A pulse of a flood, and the rest after it.
const PULSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

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
    /// TCP SYNs, each sent twice, from 1,000 addresses whose hosts live and answer what they did
    /// not ask for by a RST.
    SynLive,
    /// Connections that 1,000 sources complete and close; the rate is that of all together.
    SourcesCompleting,
    /// Connections that 10,000 sources complete and close.
    Bots,
    /// The same from all addresses of one /24.
    BotsPrefix,
    /// The same from 10,000 /64s of one /48; implies --ipv6.
    BotsPrefixV6,
    /// TCP SYNs from one inside host to 2^28 addresses outside.
    LanHost,
    /// TCP SYNs from one address that an operator would allow, all source ports.
    SynAllowed,
    /// TCP SYNs from 2^28 addresses at an open port: the server answers each.
    SynAnswered,
    /// UDP from 2^28 addresses at a port that answers.
    UdpAnswered,
    /// syn-answered, two seconds on and three off.
    SynPulses,
    /// Connections that 500 sources hold open, 28 each; the rate is that of all together, until
    /// each source has its 28.
    Holders,
    /// Connections that 500 sources complete and close.
    Completers,
    /// Connections that 5,000 sources complete, hold for 30 s and close.
    ManyHolders,
    /// UDP from one inside host to 2^28 addresses outside.
    LanHostUdp,
    /// syn-spoofed, udp-spoofed and syn-one-source, each starting and stopping at random.
    MixedRandom,
}

/// Which packets are sent once more, and how much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Every one.
    All(Duration),
    /// SYNs that were challenged.
    Challenged(Duration),
}

impl FloodKind {
    /// The one family that the flood can have, if it cannot have both.
    #[must_use]
    pub fn only_family(self) -> Option<Family> {
        use Segment::{Fragment, SynBehindExtensions};
        if self == Self::BotsPrefix {
            return Some(Family::Ipv4);
        }
        if self == Self::BotsPrefixV6 {
            return Some(Family::Ipv6);
        }
        self.strands().iter().find_map(|(segment, _)| match segment {
            Fragment(_) => Some(Family::Ipv4),
            SynBehindExtensions => Some(Family::Ipv6),
            Segment::Syn
            | Segment::Fin
            | Segment::Ack
            | Segment::Udp
            | Segment::Echo
            | Segment::Sctp
            | Segment::Answer(_) => None,
        })
    }

    /// The port that its packets go at, the first where they go at many: one that the router
    /// forwards, or one that its rules drop. None where packets have no port, or leave by it.
    #[must_use]
    pub fn port(self, dropped: bool) -> Option<u16> {
        let (forwarded, refused) = match self {
            Self::Icmp | Self::LanHost | Self::LanHostUdp => return None,
            Self::Holders | Self::ManyHolders => (HOLD_PORT, DROPPED_PORT),
            Self::SynLive
            | Self::SynAnswered
            | Self::UdpAnswered
            | Self::SynPulses
            | Self::Completers
            | Self::SourcesCompleting
            | Self::Bots
            | Self::BotsPrefix
            | Self::BotsPrefixV6 => (CROWD_PORT, DROPPED_PORT),
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
            | Self::Sctp
            | Self::SynAllowed
            | Self::MixedRandom => (FLOOD_PORT, DROPPED_PORT),
        };
        Some(if dropped { refused } else { forwarded })
    }

    /// Whether each of its frames shows one destination port where TCP and UDP usually have it, on
    /// its way into the router from outside.
    #[must_use]
    pub fn shows_port(self) -> bool {
        use Segment::{Ack, Sctp, Syn, Udp};
        !self.is_from_inside()
            && self.strands().iter().all(|(segment, _)| matches!(segment, Syn | Ack | Udp | Sctp))
    }

    /// Whether a host behind the router sends it.
    #[must_use]
    pub fn is_from_inside(self) -> bool {
        self.sources() == Sources::Infected
    }

    /// Whose packets they are; the first's, where a flood has several.
    #[must_use]
    pub fn sources(self) -> Sources {
        self.strands()[0].1
    }

    /// Packets that are sent once more.
    #[must_use]
    pub fn again(self) -> Option<Again> {
        if self.sources() == Sources::Live {
            return Some(Again::All(REPEATED_AFTER));
        }
        self.sources().answer().then_some(Again::Challenged(CHALLENGED_AFTER))
    }

    /// Whether the server of its port is part of it, see [`crate::object::serve_crowd`].
    #[must_use]
    pub fn is_served(self) -> bool {
        matches!(self, Self::SynAnswered | Self::UdpAnswered | Self::SynPulses)
            || self.again().is_some()
    }

    /// After which time its connections are closed, where that is not at once or never.
    #[must_use]
    pub fn closed_after(self) -> Option<Duration> {
        (self == Self::ManyHolders).then_some(HELD_FOR)
    }

    /// Whether it rests so long after its begin.
    #[must_use]
    pub fn rests(self, since_start: Duration) -> bool {
        let (on, off) = PULSE;
        let phase = since_start.as_secs_f64() % (on + off).as_secs_f64();
        self == Self::SynPulses && phase >= on.as_secs_f64()
    }

    /// Whether its three parts start and stop at random.
    #[must_use]
    pub fn is_fitful(self) -> bool {
        self == Self::MixedRandom
    }

    /// The rate at which the lab floods unless told otherwise; of connections, it is what 1,000
    /// sources make at 50 a second, and 10,000 at 5.
    #[must_use]
    pub fn usual_rate(self) -> Rate {
        Rate::PerSecond(match self.sources() {
            Sources::Holding => 1400,
            Sources::FewCompleting => 1200,
            Sources::ManyHolding => 5000,
            Sources::Completing | Sources::Bots | Sources::BotsOfOnePrefix => 50_000,
            Sources::One
            | Sources::Spoofed
            | Sources::Allowed
            | Sources::Infected
            | Sources::Live => 500_000,
        })
    }

    pub(super) fn strands(self) -> [(Segment, Sources); STRANDS] {
        use Segment::{Ack, Answer, Echo, Fin, Fragment, Sctp, Syn, SynBehindExtensions, Udp};
        use Sources::{
            Allowed, Bots, BotsOfOnePrefix, Completing, FewCompleting, Holding, Infected, Live,
            ManyHolding, One, Spoofed,
        };
        const DNS: u16 = 53;
        const NTP: u16 = 123;
        match self {
            Self::SynOneSource => [(Syn, One); STRANDS],
            Self::SynSpoofed | Self::SynAnswered | Self::SynPulses => [(Syn, Spoofed); STRANDS],
            Self::UdpOneSource => [(Udp, One); STRANDS],
            Self::UdpSpoofed | Self::UdpAnswered => [(Udp, Spoofed); STRANDS],
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
            Self::SynLive => [(Syn, Live); STRANDS],
            Self::SourcesCompleting => [(Syn, Completing); STRANDS],
            Self::Bots => [(Syn, Bots); STRANDS],
            Self::BotsPrefix | Self::BotsPrefixV6 => [(Syn, BotsOfOnePrefix); STRANDS],
            Self::LanHost => [(Syn, Infected); STRANDS],
            Self::LanHostUdp => [(Udp, Infected); STRANDS],
            // Of those that hold, the first strand opens and the second closes.
            Self::Holders => [Syn, Fin, Syn, Fin].map(|segment| (segment, Holding)),
            Self::ManyHolders => [Syn, Fin, Syn, Fin].map(|segment| (segment, ManyHolding)),
            Self::Completers => [(Syn, FewCompleting); STRANDS],
            Self::SynAllowed => [(Syn, Allowed); STRANDS],
            Self::MixedRandom => [(Syn, Spoofed), (Udp, Spoofed), (Syn, One), (Syn, One)],
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
    /// FIN of a connection that was held.
    Fin,
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
