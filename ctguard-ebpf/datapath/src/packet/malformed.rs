//! Why a packet could not be parsed.

use crate::layout::Outcome;

/// The header that is cut short or impossible. Conntrack cannot track such a packet
/// (`nf_conntrack_in`, `tcp_error`, `udp_error`), so it passes and is counted by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Malformed {
    /// Ethernet, VLAN or `PPPoE`.
    Link,
    /// IPv4.
    Ipv4,
    /// IPv6 or one of its extension headers.
    Ipv6,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or `ICMPv6`.
    Icmp,
}

impl Malformed {
    #[inline(always)]
    pub(crate) const fn outcome(self) -> Outcome {
        match self {
            Self::Link => Outcome::MalformedLink,
            Self::Ipv4 => Outcome::MalformedIpv4,
            Self::Ipv6 => Outcome::MalformedIpv6,
            Self::Tcp => Outcome::MalformedTcp,
            Self::Udp => Outcome::MalformedUdp,
            Self::Icmp => Outcome::MalformedIcmp,
        }
    }
}
