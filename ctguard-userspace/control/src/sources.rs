//! The known sources, and how to update the data path's set of them.

mod apply;

pub use apply::apply;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ctguard_datapath::{
    hash,
    packet::{Address, Ipv4, Ipv6},
    sources::Tiers,
};
use ctguard_layout::{HashKey, SourceLine, shared::Shared};
use thiserror::Error;

/// A source, as the data path has it (`Address::source_scope`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceScope {
    /// A whole address.
    V4(u32),
    /// A /64, by its first 64 bits.
    V6(u64),
}

impl SourceScope {
    /// Its hash in the set of known sources.
    pub const fn hash(self, key: &HashKey) -> u64 {
        match self {
            Self::V4(address) => hash::scope(key, Ipv4::FAMILY, address as u64),
            Self::V6(prefix) => hash::scope(key, Ipv6::FAMILY, prefix),
        }
    }
}

impl SourceScope {
    /// The first address of the source, and the length of its prefix.
    pub fn prefix(self) -> (IpAddr, u8) {
        match self {
            Self::V4(address) => (Ipv4Addr::from(address).into(), 32),
            Self::V6(prefix) => (Ipv6Addr::from(u128::from(prefix) << 64).into(), 64),
        }
    }
}

impl From<IpAddr> for SourceScope {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.into()),
            IpAddr::V6(address) => Self::V6(Ipv6::from_address(address).source_scope()),
        }
    }
}

/// `192.0.2.1` or `2001:db8:0:1::/64`.
impl fmt::Display for SourceScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4(address) => Ipv4Addr::from(address).fmt(formatter),
            Self::V6(prefix) => {
                write!(formatter, "{}/64", Ipv6Addr::from(u128::from(prefix) << 64))
            }
        }
    }
}

impl SourceScope {
    /// The source in a slot of offered loads: no address of the IPv6 Internet begins with 32 zero
    /// bits.
    pub fn of_slot(address: u64) -> Option<Self> {
        match u32::try_from(address) {
            Ok(0) => None,
            Ok(address) => Some(Self::V4(address)),
            Err(_) => Some(Self::V6(address)),
        }
    }
}

/// Low bits of a slot of the set of known sources, which hold no hash.
const TIERS_BITS: u32 = 5;

/// What a slot of the set of known sources holds of a hash.
pub(crate) const fn fingerprint(word: u64) -> u64 {
    word >> TIERS_BITS
}

/// The number of each known source's slot, which is that of its cells too.
#[derive(Clone, Debug, Default)]
pub struct KnownSlots(HashMap<u64, usize>);

impl KnownSlots {
    /// Reads the set.
    pub fn new(lines: &[SourceLine]) -> Self {
        let slots = lines.iter().flat_map(|line| &line.slots).map(Shared::load).enumerate();
        let used = slots.filter(|(_, word)| *word != 0);
        Self(used.map(|(slot, word)| (fingerprint(word), slot)).collect())
    }

    /// The slot of a source, if it was known.
    pub fn find(&self, source: SourceScope, key: &HashKey) -> Option<usize> {
        self.0.get(&fingerprint(source.hash(key))).copied()
    }
}

/// Text that names no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is neither an IPv4 address nor an IPv6 prefix of 64 bits")]
pub struct NoScope;

impl FromStr for SourceScope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        let scope = match text.strip_suffix("/64") {
            Some(prefix) => prefix.parse::<Ipv6Addr>().map(IpAddr::from),
            None => text.parse::<Ipv4Addr>().map(IpAddr::from),
        }
        .map(Self::from)
        .map_err(|_| NoScope)?;
        // Bits behind the prefix are a typing error.
        if scope.to_string() == text { Ok(scope) } else { Err(NoScope) }
    }
}

/// Known sources and their tiers.
pub type KnownSources = HashMap<SourceScope, Tiers>;

/// The difference between two sets of known sources, in the order in which to write it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Written first, because they make room.
    pub removed: Vec<SourceScope>,
    /// New sources, and sources whose tiers changed.
    pub written: Vec<(SourceScope, Tiers)>,
}

/// The differences from `old` to `new`. All other sources keep their slots and cells.
pub fn sync(old: &KnownSources, new: &KnownSources) -> Changes {
    let removed = old.keys().filter(|source| !new.contains_key(source)).copied().collect();
    let written = new
        .iter()
        .filter(|&(source, tiers)| old.get(source) != Some(tiers))
        .map(|(&source, &tiers)| (source, tiers))
        .collect();
    Changes { removed, written }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use ctguard_datapath::sources::testing::Set;

    const REGULAR: Tiers = Tiers::REGULAR;
    const PROVEN: Tiers = Tiers::PROVEN;

    #[test]
    fn a_scope_is_the_data_paths_own() {
        let v6: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(SourceScope::from(IpAddr::from(v6)), SourceScope::V6(0x2001_0db8_0001_0002));
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(SourceScope::from(IpAddr::from(v4)), SourceScope::V4(0xc000_0201));
        let key = HashKey { words: [3; 12] };
        let (address, address6) = (Ipv4(v4.into()), Ipv6::from_address(v6));
        let hash = |address: IpAddr| SourceScope::from(address).hash(&key);
        assert_eq!(hash(v4.into()), hash::scope(&key, 4, address.source_scope()));
        assert_eq!(hash(v6.into()), hash::scope(&key, 6, address6.source_scope()));
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for text in ["192.0.2.1", "2001:db8:0:1::/64", "::/64"] {
            assert_eq!(text.parse::<SourceScope>().unwrap().to_string(), text);
        }
        for text in ["", "192.0.2.1/64", "192.0.2.1/32", "2001:db8::1", "2001:db8::1/64", "x"] {
            assert_eq!(text.parse::<SourceScope>(), Err(NoScope), "{text}");
        }
    }

    #[test]
    fn the_slot_of_a_known_source_is_found_by_its_address() {
        let set = Set::default();
        let mut random = Random::new(11);
        let mut word = || u64::from(random.below(u32::MAX));
        let key = HashKey { words: std::array::from_fn(|_| word() << 32 | word()) };
        let known: Vec<_> = (1..=100).map(SourceScope::V4).collect();
        let changes = Changes {
            written: known.iter().map(|source| (*source, PROVEN)).collect(),
            ..Changes::default()
        };
        assert_eq!(apply(&set, &key, changes, &mut KnownSources::new()), []);
        let slots = KnownSlots::new(&set.lines);
        for source in known {
            let slot = slots.find(source, &key).unwrap();
            let word = set.lines[slot / SourceLine::SLOTS].slots[slot % SourceLine::SLOTS].load();
            assert_eq!(fingerprint(word), fingerprint(source.hash(&key)));
        }
        assert_eq!(slots.find(SourceScope::V4(101), &key), None);
    }

    #[test]
    fn only_differences_are_written() {
        let [one, two, three, four] = [1, 2, 3, 4].map(SourceScope::V4);
        let old = KnownSources::from([(one, REGULAR), (two, PROVEN), (three, PROVEN)]);
        let new = KnownSources::from([(two, PROVEN), (three, REGULAR), (four, REGULAR)]);
        let mut changes = sync(&old, &new);
        changes.written.sort_by_key(|&(source, _)| source);
        assert_eq!(changes.removed, [one]);
        assert_eq!(changes.written, [(three, REGULAR), (four, REGULAR)]);
        assert_eq!(sync(&new, &new), Changes::default());
    }

    #[test]
    fn changes_make_of_the_old_what_is_new() {
        let mut random = Random::new(9);
        let mut set = || {
            let mut known = KnownSources::new();
            for _ in 0..50 {
                let tiers = [REGULAR, PROVEN, REGULAR.and(PROVEN)][random.below(3) as usize];
                known.insert(SourceScope::V4(random.below(64)), tiers);
            }
            known
        };
        for _ in 0..200 {
            let (mut old, new) = (set(), set());
            let changes = sync(&old, &new);
            for source in changes.removed {
                assert!(old.remove(&source).is_some());
            }
            old.extend(changes.written);
            assert_eq!(old, new);
        }
    }
}
