//! Allow and deny lists: longest-prefix maps for each family.

use std::{io, net::IpAddr};

use aya::maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use ctguard_layout::{List, ListEntry, maps};
use ipnet::IpNet;
use thiserror::Error;

use super::{
    memory::Value,
    open::{OpenError, open, os_error},
};
use crate::bpf::Pins;

type Trie<const N: usize> = LpmTrie<MapData, [u8; N], Value<ListEntry>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    Allow,
    Deny,
}

impl ListKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

#[derive(Debug, Error)]
pub enum ListError {
    #[error("the list is full ({} prefixes of each family)", ListEntry::CAPACITY)]
    Full,
    #[error("cannot use a list's map")]
    Map(#[source] MapError),
    #[error("cannot use a map of the feeds")]
    Feeds(#[from] io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub prefix: IpNet,
    /// In jiffies; 0 means never.
    pub expires_at: u64,
}

impl Entry {
    /// `now` is in jiffies.
    pub const fn is_live(&self, now: u64) -> bool {
        self.expires_at == 0 || self.expires_at > now
    }
}

#[derive(Debug)]
pub struct Lists {
    allow: Tries,
    deny: Tries,
}

#[derive(Debug)]
pub(super) struct Tries {
    pub(super) v4: Trie<4>,
    pub(super) v6: Trie<16>,
}

impl Lists {
    pub(super) fn open(pins: &Pins) -> Result<Self, OpenError> {
        Ok(Self {
            allow: Tries { v4: trie(pins, maps::ALLOW_V4)?, v6: trie(pins, maps::ALLOW_V6)? },
            deny: Tries { v4: trie(pins, maps::DENY_V4)?, v6: trie(pins, maps::DENY_V6)? },
        })
    }

    /// All entries, sorted, IPv4 first.
    pub fn entries(&self, kind: ListKind) -> Result<Vec<Entry>, ListError> {
        let Tries { v4, v6 } = self.of_kind(kind);
        let mut entries = read(v4)?;
        entries.extend(read(v6)?);
        entries.sort_by_key(|entry| entry.prefix);
        Ok(entries)
    }

    /// Adds `entry`, or replaces the entry with the same prefix.
    pub(super) fn add(&mut self, kind: ListKind, entry: Entry) -> Result<(), ListError> {
        let length = u32::from(entry.prefix.prefix_len());
        let value = Value(ListEntry { expires_at: entry.expires_at });
        let tries = self.tries(kind);
        let added = match entry.prefix {
            IpNet::V4(net) => tries.v4.insert(&Key::new(length, net.network().octets()), value, 0),
            IpNet::V6(net) => tries.v6.insert(&Key::new(length, net.network().octets()), value, 0),
        };
        added.map_err(|error| {
            if os_error(&error) == Some(libc::ENOSPC) {
                ListError::Full
            } else {
                ListError::Map(error)
            }
        })
    }

    /// Whether `prefix` was there.
    pub(super) fn remove(&mut self, kind: ListKind, prefix: IpNet) -> Result<bool, ListError> {
        let length = u32::from(prefix.prefix_len());
        let tries = self.tries(kind);
        let removed = match prefix {
            IpNet::V4(net) => tries.v4.remove(&Key::new(length, net.network().octets())),
            IpNet::V6(net) => tries.v6.remove(&Key::new(length, net.network().octets())),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(false),
            Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(ListError::Map(error)),
        }
    }

    /// Removes entries that expired by `now`; returns their number.
    pub(super) fn expire(&mut self, kind: ListKind, now: u64) -> Result<usize, ListError> {
        let expired: Vec<_> =
            self.entries(kind)?.into_iter().filter(|entry| !entry.is_live(now)).collect();
        for entry in &expired {
            self.remove(kind, entry.prefix)?;
        }
        Ok(expired.len())
    }

    /// As `Environment::lists_in_use`.
    pub(super) fn in_use(&self) -> Result<u32, ListError> {
        let mut bits = 0;
        for (list, empty) in [
            (List::AllowV4, is_empty(&self.allow.v4)?),
            (List::AllowV6, is_empty(&self.allow.v6)?),
            (List::DenyV4, is_empty(&self.deny.v4)?),
            (List::DenyV6, is_empty(&self.deny.v6)?),
        ] {
            if !empty {
                bits |= list.bit();
            }
        }
        Ok(bits)
    }

    pub(super) const fn of_kind(&self, kind: ListKind) -> &Tries {
        match kind {
            ListKind::Allow => &self.allow,
            ListKind::Deny => &self.deny,
        }
    }

    fn tries(&mut self, kind: ListKind) -> &mut Tries {
        match kind {
            ListKind::Allow => &mut self.allow,
            ListKind::Deny => &mut self.deny,
        }
    }
}

fn trie<const N: usize>(pins: &Pins, name: &'static str) -> Result<Trie<N>, OpenError> {
    LpmTrie::try_from(Map::LpmTrie(open(pins, name)?))
        .map_err(|source| OpenError::Map { name, source })
}

fn read<const N: usize>(trie: &Trie<N>) -> Result<Vec<Entry>, ListError>
where
    IpAddr: From<[u8; N]>,
{
    let mut entries = Vec::new();
    for item in trie {
        let (key, Value(ListEntry { expires_at })) = item.map_err(ListError::Map)?;
        let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
        let prefix = IpNet::new(IpAddr::from(key.data()), length);
        entries.extend(prefix.map(|prefix| Entry { prefix, expires_at }));
    }
    Ok(entries)
}

fn is_empty<const N: usize>(trie: &Trie<N>) -> Result<bool, ListError> {
    trie.keys().next().transpose().map(|key| key.is_none()).map_err(ListError::Map)
}
