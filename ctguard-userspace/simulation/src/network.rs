//! The addresses of a group's sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// 2^24 divided by the golden ratio: multiples of it are spread evenly.
const GOLDEN: u64 = 10_368_889;

/// Sources, numbered from the first address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    first: IpAddr,
    size: u64,
    /// From one source to the next, modulo the size: odd, so that no two are the same.
    stride: u64,
}

impl Network {
    /// One source per IPv4 address or IPv6 /64.
    pub(super) fn of(network: IpNet) -> Self {
        let bits = match network {
            IpNet::V4(network) => 32 - network.prefix_len(),
            IpNet::V6(network) => 64_u8.saturating_sub(network.prefix_len()),
        };
        Self {
            first: network.network(),
            size: 1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX),
            stride: 1,
        }
    }

    /// A quarter of a billion IPv4 addresses.
    pub(super) const fn spoofed() -> Self {
        Self { first: IpAddr::V4(Ipv4Addr::new(64, 0, 0, 0)), size: 1 << 28, stride: 1 }
    }

    /// An IPv4 /8 for each group, from 128.0.0.0 on, outside of the spoofed addresses. Its sources
    /// are far apart, as those of the Internet are.
    pub(super) fn of_group(group: usize) -> Self {
        let number = u8::try_from(group).unwrap_or(u8::MAX) & 0x3f;
        Self {
            first: IpAddr::V4(Ipv4Addr::new(128 + number, 0, 0, 0)),
            size: 1 << 24,
            stride: GOLDEN,
        }
    }

    pub(super) const fn is_ipv6(self) -> bool {
        self.first.is_ipv6()
    }

    pub(super) const fn size(self) -> u64 {
        self.size
    }

    pub(super) fn address(self, number: u64) -> IpAddr {
        let number = number.wrapping_mul(self.stride) % self.size;
        match self.first {
            IpAddr::V4(first) => {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                IpAddr::V4(Ipv4Addr::from(u32::from(first).wrapping_add(number)))
            }
            IpAddr::V6(first) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(first) + (u128::from(number) << 64) + 1))
            }
        }
    }

    /// Whether a source (see `Address::source_scope`) is one of these.
    pub(super) fn holds(self, family: u32, scope: u64) -> bool {
        let (of, first) = match self.first {
            IpAddr::V4(first) => (4, u64::from(u32::from(first))),
            IpAddr::V6(first) => (6, u64::try_from(u128::from(first) >> 64).unwrap_or(u64::MAX)),
        };
        family == of && scope.checked_sub(first).is_some_and(|number| number < self.size)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_are_numbered_from_the_first() {
        let network = Network::of("192.0.2.0/24".parse().unwrap());
        assert_eq!(network.address(7), "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(network.size(), 256);
    }

    #[test]
    fn sources_of_a_group_are_in_many_networks() {
        let network = Network::of_group(3);
        let networks: HashSet<_> = (0..50_000)
            .map(|source| match network.address(source) {
                IpAddr::V4(address) => u32::from(address) >> 8,
                IpAddr::V6(address) => panic!("{address}"),
            })
            .collect();
        assert!(networks.len() > 35_000, "{}", networks.len());
        assert!(networks.iter().all(|network| network >> 16 == 131));
    }

    #[test]
    fn a_source_of_ipv6_is_a_64() {
        let network = Network::of("2001:db8::/48".parse().unwrap());
        assert_eq!(network.address(2), "2001:db8:0:2::1".parse::<IpAddr>().unwrap());
        assert_eq!(network.size(), 1 << 16);
        assert!(network.holds(6, 0x2001_0db8_0000_0002));
        assert!(!network.holds(6, 0x2001_0db8_0001_0002));
    }
}
