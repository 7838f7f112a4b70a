//! Why a packet could not be parsed.

use crate::layout::Counter;

/// The header that is cut short or impossible. Conntrack cannot track such a packet either
/// (`nf_conntrack_in`, `tcp_error`, `udp_error`), so it passes, counted by reason.
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
    /// The reason of this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Link,
            1 => Self::Ipv4,
            2 => Self::Ipv6,
            3 => Self::Tcp,
            4 => Self::Udp,
            _ => Self::Icmp,
        }
    }

    /// The counter of the reason.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Self::Link => Counter::MalformedLink,
            Self::Ipv4 => Counter::MalformedIpv4,
            Self::Ipv6 => Counter::MalformedIpv6,
            Self::Tcp => Counter::MalformedTcp,
            Self::Udp => Counter::MalformedUdp,
            Self::Icmp => Counter::MalformedIcmp,
        }
    }
}
