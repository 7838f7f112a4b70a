//! Whose packets a flood's are, and where they go.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use super::Route;
use crate::{addresses::Family, crowd::Crowd};

/// Where in a frame the address word of the source lies: the whole address of IPv4, the second
/// half of the network part of IPv6.
const SOURCE_AT: usize = 26;

/// Whose packets a flood's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// One address.
    One,
    /// 2^28 addresses.
    Spoofed,
    /// One address, on the allow list.
    Allowed,
    /// One inside host, which addresses 2^28 outside.
    Infected,
    /// Addresses of hosts that live and have no part in it.
    Live,
    /// Five hundred that hold their connections open.
    Holding,
    /// Five hundred that complete their connections.
    FewCompleting,
    /// Five thousand that complete their connections and hold them for a while.
    ManyHolding,
    /// A thousand that complete their connections.
    Completing,
    /// Ten thousand that do.
    Bots,
    /// As many as one /24, or one IPv6 /48, has of them.
    BotsOfOnePrefix,
}

impl Sources {
    /// The addresses, where they are a crowd.
    #[must_use]
    pub fn crowd(self, family: Family) -> Option<Crowd> {
        match self {
            Self::Live => Some(Crowd::live(family)),
            Self::Holding => Some(Crowd::holding(family)),
            Self::FewCompleting => Some(Crowd::few_completing(family)),
            Self::ManyHolding => Some(Crowd::many_holding(family)),
            Self::Completing => Some(Crowd::completing(family)),
            Self::Bots => Some(Crowd::bots(family)),
            Self::BotsOfOnePrefix => Some(Crowd::bots_of_one_prefix(family)),
            Self::One | Self::Spoofed | Self::Allowed | Self::Infected => None,
        }
    }

    /// Whether they answer for what they send, by the lab's programs.
    #[must_use]
    pub fn answer(self) -> bool {
        match self {
            Self::Completing
            | Self::Bots
            | Self::BotsOfOnePrefix
            | Self::Holding
            | Self::FewCompleting
            | Self::ManyHolding => true,
            Self::One | Self::Spoofed | Self::Allowed | Self::Infected | Self::Live => false,
        }
    }

    /// Whether they hold their connections open, and how many each at most; 0 is any number.
    #[must_use]
    pub fn hold(self) -> Option<u32> {
        match self {
            Self::Holding => Some(28),
            Self::ManyHolding => Some(0),
            Self::One
            | Self::Spoofed
            | Self::Allowed
            | Self::Infected
            | Self::Live
            | Self::Completing
            | Self::FewCompleting
            | Self::Bots
            | Self::BotsOfOnePrefix => None,
        }
    }
}

/// Both ends of a strand's packets, and what differs between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    /// Where the address word lies that differs.
    pub(super) address_at: usize,
    /// Its random bits, in network order.
    pub(super) spoofed: u32,
    pub(super) crowd: Option<Crowd>,
}

impl Ends {
    pub(super) fn of(sources: Sources, route: Route) -> Result<Self> {
        const RANDOM: u32 = 0x0fff_ffff_u32.to_be();
        let family = route.family;
        let target = family.flood_target(route.port).ip();
        let one = |from| Self { from, to: target, address_at: SOURCE_AT, spoofed: 0, crowd: None };
        let crowd = sources.crowd(family);
        Ok(match sources {
            Sources::One => one(family.flood_source()),
            Sources::Allowed => one(family.allowed_source()),
            Sources::Spoofed => Self { spoofed: RANDOM, ..one(family.spoofed_base()) },
            Sources::Infected => Self {
                from: family.infected_host(),
                to: family.spoofed_base(),
                address_at: destination_at(family),
                spoofed: RANDOM,
                crowd: None,
            },
            Sources::Live
            | Sources::Completing
            | Sources::Bots
            | Sources::BotsOfOnePrefix
            | Sources::Holding
            | Sources::FewCompleting
            | Sources::ManyHolding => {
                let first = crowd.context("a crowd without members")?.member(0);
                Self { crowd, ..one(first) }
            }
        })
    }
}

/// Where in a frame the address word of the destination lies.
fn destination_at(family: Family) -> usize {
    match family {
        Family::Ipv4 => 30,
        Family::Ipv6 => 42,
    }
}
