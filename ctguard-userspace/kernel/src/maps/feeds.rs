//! The feeds' lists: longest-prefix maps that the daemon alone writes, many entries at a time.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ctguard_layout::{FeedEntry, List, maps};
use ipnet::IpNet;

use super::{
    ListKind,
    open::{OpenError, open},
};
use crate::bpf::{BatchMap, Pins};

const VALUE: usize = size_of::<FeedEntry>();
const KEY_V4: usize = size_of::<u32>() + 4;
const KEY_V6: usize = size_of::<u32>() + 16;

/// A prefix that feeds list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedListed {
    pub prefix: IpNet,
    /// In jiffies; 0 means never.
    pub expires_at: u64,
    /// A bit for each feed.
    pub feeds: u32,
}

#[derive(Debug)]
pub struct FeedLists {
    allow: Tries,
    deny: Tries,
}

#[derive(Debug)]
struct Tries {
    v4: BatchMap<KEY_V4, VALUE>,
    v6: BatchMap<KEY_V6, VALUE>,
}

impl FeedLists {
    /// Opens the lists under `pins`.
    pub fn open(pins: &Pins) -> Result<Self, OpenError> {
        let allow = Tries::open(pins, maps::FEED_ALLOW_V4, maps::FEED_ALLOW_V6)?;
        let deny = Tries::open(pins, maps::FEED_DENY_V4, maps::FEED_DENY_V6)?;
        Ok(Self { allow, deny })
    }

    /// All entries, sorted, IPv4 first.
    pub fn entries(&self, kind: ListKind) -> io::Result<Vec<FeedListed>> {
        let tries = self.tries(kind);
        let mut all: Vec<_> = tries.v4.entries()?.iter().filter_map(listed).collect();
        all.extend(tries.v6.entries()?.iter().filter_map(listed));
        all.sort_unstable_by_key(|listed| listed.prefix);
        all.dedup_by_key(|listed| listed.prefix);
        Ok(all)
    }

    /// When the longest prefix of the list ends that holds `address`, in jiffies; 0 means never.
    pub(super) fn end(&self, kind: ListKind, address: IpAddr) -> io::Result<Option<u64>> {
        let tries = self.tries(kind);
        let value = match address {
            IpAddr::V4(address) => tries.v4.get(&key(32, address.octets()))?,
            IpAddr::V6(address) => tries.v6.get(&key(128, address.octets()))?,
        };
        Ok(value.and_then(|value| value.first_chunk().copied()).map(u64::from_ne_bytes))
    }

    /// Adds entries, or changes when they expire and who lists them.
    pub fn update(&self, kind: ListKind, entries: &[FeedListed]) -> io::Result<()> {
        let tries = self.tries(kind);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for FeedListed { prefix, expires_at, feeds } in entries {
            let mut value = [0; VALUE];
            value[..8].copy_from_slice(&expires_at.to_ne_bytes());
            value[8..].copy_from_slice(&feeds.to_ne_bytes());
            match prefix {
                IpNet::V4(net) => v4.push((key(net.prefix_len(), net.network().octets()), value)),
                IpNet::V6(net) => v6.push((key(net.prefix_len(), net.network().octets()), value)),
            }
        }
        tries.v4.update(&v4)?;
        tries.v6.update(&v6)
    }

    pub fn remove(&self, kind: ListKind, prefixes: &[IpNet]) -> io::Result<()> {
        let tries = self.tries(kind);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push(key(net.prefix_len(), net.network().octets())),
                IpNet::V6(net) => v6.push(key(net.prefix_len(), net.network().octets())),
            }
        }
        tries.v4.remove(&v4)?;
        tries.v6.remove(&v6)
    }

    /// As `Environment::lists_in_use`.
    pub(super) fn in_use(&self) -> io::Result<u32> {
        let mut bits = 0;
        for (list, empty) in [
            (List::FeedAllowV4, self.allow.v4.is_empty()?),
            (List::FeedAllowV6, self.allow.v6.is_empty()?),
            (List::FeedDenyV4, self.deny.v4.is_empty()?),
            (List::FeedDenyV6, self.deny.v6.is_empty()?),
        ] {
            if !empty {
                bits |= list.bit();
            }
        }
        Ok(bits)
    }

    const fn tries(&self, kind: ListKind) -> &Tries {
        match kind {
            ListKind::Allow => &self.allow,
            ListKind::Deny => &self.deny,
        }
    }
}

impl Tries {
    fn open(pins: &Pins, v4: &'static str, v6: &'static str) -> Result<Self, OpenError> {
        Ok(Self { v4: trie(pins, v4)?, v6: trie(pins, v6)? })
    }
}

fn trie<const K: usize>(pins: &Pins, name: &'static str) -> Result<BatchMap<K, VALUE>, OpenError> {
    BatchMap::new(open(pins, name)?).map_err(|source| OpenError::Map { name, source })
}

/// `struct bpf_lpm_trie_key`.
fn key<const A: usize, const K: usize>(length: u8, address: [u8; A]) -> [u8; K] {
    let mut key = [0; K];
    key[..4].copy_from_slice(&u32::from(length).to_ne_bytes());
    key[4..].copy_from_slice(&address);
    key
}

fn listed<const K: usize>((key, value): &([u8; K], [u8; VALUE])) -> Option<FeedListed> {
    let (length, address) = key.split_first_chunk()?;
    let address: IpAddr = match address.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
    };
    let length = u8::try_from(u32::from_ne_bytes(*length)).ok()?;
    let (expires_at, feeds) = value.split_first_chunk()?;
    Some(FeedListed {
        prefix: IpNet::new(address, length).ok()?,
        expires_at: u64::from_ne_bytes(*expires_at),
        feeds: u32::from_ne_bytes(feeds.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let prefix: IpNet = "2001:db8::/48".parse().unwrap();
        let IpNet::V6(net) = prefix else { unreachable!() };
        let key: [u8; KEY_V6] = key(48, net.network().octets());
        let mut value = [0; VALUE];
        value[..8].copy_from_slice(&7_u64.to_ne_bytes());
        value[8..].copy_from_slice(&5_u32.to_ne_bytes());
        assert_eq!(listed(&(key, value)), Some(FeedListed { prefix, expires_at: 7, feeds: 5 }));
    }
}
