//! Crowds: addresses that a flood uses in turn, so that each of them is counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addresses::Family;

/// So many addresses, evenly spaced: of IPv4 one after the other, of IPv6 one of each network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    first: IpAddr,
    /// How many there are.
    pub members: u32,
    spread: Spread,
}

/// How far IPv6 members lie from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// A /64 each of one /48.
    Subnets,
    /// A /48 each.
    Sites,
}

impl Crowd {
    /// Hosts that live: the kernel of the internet answers for them, and knows no connection.
    #[must_use]
    pub fn live(family: Family) -> Self {
        Self::of(family, Ipv4Addr::new(198, 19, 0, 0), (0x5000, 1000), Spread::Sites)
    }

    /// A thousand sources that complete their connections.
    #[must_use]
    pub fn completing(family: Family) -> Self {
        Self::of(family, Ipv4Addr::new(198, 18, 64, 0), (0x4000, 1000), Spread::Sites)
    }

    /// Ten thousand that do.
    #[must_use]
    pub fn bots(family: Family) -> Self {
        Self::of(family, Ipv4Addr::new(198, 18, 0, 0), (0x1000, 10_000), Spread::Sites)
    }

    /// Five hundred that hold their connections open.
    #[must_use]
    pub fn holding(family: Family) -> Self {
        Self::of(family, Ipv4Addr::new(198, 18, 192, 0), (0x7000, 500), Spread::Sites)
    }

    /// Five hundred that complete their connections.
    #[must_use]
    pub fn few_completing(family: Family) -> Self {
        Self::of(family, Ipv4Addr::new(198, 18, 196, 0), (0x8000, 500), Spread::Sites)
    }

    /// Five thousand that complete their connections and hold them for a while.
    #[must_use]
    pub fn many_holding(family: Family) -> Self {
        Self::of(family, Ipv4Addr::new(198, 18, 200, 0), (0x9000, 5000), Spread::Sites)
    }

    /// All hosts of an IPv4 /24, or ten thousand /64s of an IPv6 /48.
    #[must_use]
    pub fn bots_of_one_prefix(family: Family) -> Self {
        let members = match family {
            Family::Ipv4 => 254,
            Family::Ipv6 => 10_000,
        };
        Self::of(family, Ipv4Addr::new(198, 18, 128, 1), (0x6000, members), Spread::Subnets)
    }

    /// The networks, as `ip route` takes them, that hold the live hosts of both families.
    #[must_use]
    pub fn live_networks() -> [&'static str; 2] {
        ["198.19.0.0/22", "3fff:0:5000::/38"]
    }

    /// `3fff::/20` is for documentation (RFC 9637); sites of the crowds lie above those spoofed.
    fn of(family: Family, v4: Ipv4Addr, v6: (u16, u32), spread: Spread) -> Self {
        let (site, members) = v6;
        let first = match family {
            Family::Ipv4 => v4.into(),
            Family::Ipv6 => Ipv6Addr::new(0x3fff, 0, site, 0, 0, 0, 0, 1).into(),
        };
        Self { first, members, spread }
    }

    /// Member number `index`, from 0 to below `members`.
    #[must_use]
    pub fn member(&self, index: u32) -> IpAddr {
        let steps = index * self.word_step();
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + steps).into(),
            IpAddr::V6(first) => {
                Ipv6Addr::from(u128::from(first) + (u128::from(steps) << 64)).into()
            }
        }
    }

    /// From one member's address word to the next: the whole address of IPv4, the second half of
    /// the network part of IPv6.
    pub(crate) fn word_step(&self) -> u32 {
        match (self.first, self.spread) {
            (IpAddr::V4(_), _) | (IpAddr::V6(_), Spread::Subnets) => 1,
            (IpAddr::V6(_), Spread::Sites) => 1 << 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::addresses::{FAR_CLIENTS, INSIDE_CLIENTS};

    const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    fn crowds(family: Family) -> [Crowd; 7] {
        [
            Crowd::live,
            Crowd::completing,
            Crowd::bots,
            Crowd::bots_of_one_prefix,
            Crowd::holding,
            Crowd::few_completing,
            Crowd::many_holding,
        ]
        .map(|of| of(family))
    }

    #[test]
    fn no_member_is_anybody_else() {
        for family in FAMILIES {
            let mut all = HashSet::new();
            let legitimate = (0..FAR_CLIENTS).map(|index| family.far_client(index));
            let inside = (0..INSIDE_CLIENTS).map(|index| family.inside_client(index));
            let single = [
                family.far_server(),
                family.router_wan(),
                family.inside_server(),
                family.sink(),
                family.crowd_server(),
                family.flood_source(),
                family.allowed_source(),
                family.infected_host(),
            ];
            let members = crowds(family);
            let members = members
                .iter()
                .flat_map(|crowd| (0..crowd.members).map(|index| crowd.member(index)));
            for address in legitimate.chain(inside).chain(single).chain(members) {
                assert!(all.insert(address), "{address} twice");
            }
        }
    }

    #[test]
    fn bots_of_one_prefix_share_it_and_others_do_not() {
        let sites = |crowd: Crowd| -> usize {
            let prefix = |index| match crowd.member(index) {
                IpAddr::V4(ip) => u128::from(u32::from(ip) >> 8),
                IpAddr::V6(ip) => u128::from(ip) >> 80,
            };
            (0..crowd.members).map(prefix).collect::<HashSet<_>>().len()
        };
        for family in FAMILIES {
            assert_eq!(sites(Crowd::bots_of_one_prefix(family)), 1);
            assert!(sites(Crowd::bots(family)) >= 40);
        }
    }
}
