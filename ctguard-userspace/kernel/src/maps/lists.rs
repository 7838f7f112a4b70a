//! Allow and deny lists: longest-prefix maps for each family.

use std::net::{Ipv4Addr, Ipv6Addr};

use aya::maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use ctguard_layout::{List, ListEntry, maps};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use super::{
    memory::Value,
    open::{OpenError, open},
};
use crate::bpf::Pins;

type Trie<const N: usize> = LpmTrie<MapData, [u8; N], Value<ListEntry>>;

/// Which list a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    Allow,
    Deny,
}

/// Why a list could not be changed.
#[derive(Debug, Error)]
pub enum ListError {
    #[error("the list is full ({} prefixes of each family)", ListEntry::CAPACITY)]
    Full,
    #[error("cannot use a list's map")]
    Map(#[source] MapError),
}

/// One prefix of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub prefix: IpNet,
    /// Jiffies; 0: never.
    pub expires_at: u64,
}

impl Entry {
    /// Whether it holds at `now`, in jiffies.
    pub const fn is_live(&self, now: u64) -> bool {
        self.expires_at == 0 || self.expires_at > now
    }
}

/// The four maps.
#[derive(Debug)]
pub struct Lists {
    allow_v4: Trie<4>,
    allow_v6: Trie<16>,
    deny_v4: Trie<4>,
    deny_v6: Trie<16>,
}

impl Lists {
    pub(super) fn open(pins: &Pins) -> Result<Self, OpenError> {
        Ok(Self {
            allow_v4: trie(pins, maps::ALLOW_V4)?,
            allow_v6: trie(pins, maps::ALLOW_V6)?,
            deny_v4: trie(pins, maps::DENY_V4)?,
            deny_v6: trie(pins, maps::DENY_V6)?,
        })
    }

    /// Every entry of a list, IPv4 first, in order.
    pub fn entries(&self, kind: ListKind) -> Result<Vec<Entry>, ListError> {
        let (v4, v6) = match kind {
            ListKind::Allow => (&self.allow_v4, &self.allow_v6),
            ListKind::Deny => (&self.deny_v4, &self.deny_v6),
        };
        let mut entries = read(v4, |length, address| {
            Ipv4Net::new(Ipv4Addr::from(address), length).map(IpNet::V4).ok()
        })?;
        entries.extend(read(v6, |length, address| {
            Ipv6Net::new(Ipv6Addr::from(address), length).map(IpNet::V6).ok()
        })?);
        entries.sort_by_key(|entry| entry.prefix);
        Ok(entries)
    }

    /// Adds `entry` or replaces the entry of its prefix.
    pub(super) fn add(&mut self, kind: ListKind, entry: Entry) -> Result<(), ListError> {
        let length = u32::from(entry.prefix.prefix_len());
        let value = Value(ListEntry { expires_at: entry.expires_at });
        let added = match entry.prefix {
            IpNet::V4(net) => {
                self.v4(kind).insert(&Key::new(length, net.network().octets()), value, 0)
            }
            IpNet::V6(net) => {
                self.v6(kind).insert(&Key::new(length, net.network().octets()), value, 0)
            }
        };
        added.map_err(|error| {
            if os_error(&error) == Some(libc::ENOSPC) {
                ListError::Full
            } else {
                ListError::Map(error)
            }
        })
    }

    /// Whether `prefix` was there and is not any more.
    pub(super) fn remove(&mut self, kind: ListKind, prefix: IpNet) -> Result<bool, ListError> {
        let length = u32::from(prefix.prefix_len());
        let removed = match prefix {
            IpNet::V4(net) => self.v4(kind).remove(&Key::new(length, net.network().octets())),
            IpNet::V6(net) => self.v6(kind).remove(&Key::new(length, net.network().octets())),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(ListError::Map(error)),
        }
    }

    /// Removes what expired by `now`, and tells how many entries that were.
    pub(super) fn expire(&mut self, kind: ListKind, now: u64) -> Result<usize, ListError> {
        let expired: Vec<_> =
            self.entries(kind)?.into_iter().filter(|entry| !entry.is_live(now)).collect();
        for entry in &expired {
            self.remove(kind, entry.prefix)?;
        }
        Ok(expired.len())
    }

    /// `Environment::lists_in_use` as it ought to be.
    pub(super) fn in_use(&self) -> Result<u32, ListError> {
        let mut bits = 0;
        for (list, empty) in [
            (List::AllowV4, is_empty(&self.allow_v4)?),
            (List::AllowV6, is_empty(&self.allow_v6)?),
            (List::DenyV4, is_empty(&self.deny_v4)?),
            (List::DenyV6, is_empty(&self.deny_v6)?),
        ] {
            if !empty {
                bits |= list.bit();
            }
        }
        Ok(bits)
    }

    fn v4(&mut self, kind: ListKind) -> &mut Trie<4> {
        match kind {
            ListKind::Allow => &mut self.allow_v4,
            ListKind::Deny => &mut self.deny_v4,
        }
    }

    fn v6(&mut self, kind: ListKind) -> &mut Trie<16> {
        match kind {
            ListKind::Allow => &mut self.allow_v6,
            ListKind::Deny => &mut self.deny_v6,
        }
    }
}

fn trie<const N: usize>(pins: &Pins, name: &'static str) -> Result<Trie<N>, OpenError> {
    LpmTrie::try_from(Map::LpmTrie(open(pins, name)?))
        .map_err(|source| OpenError::Map { name, source })
}

fn read<const N: usize>(
    trie: &Trie<N>,
    prefix: impl Fn(u8, [u8; N]) -> Option<IpNet>,
) -> Result<Vec<Entry>, ListError> {
    let mut entries = Vec::new();
    for item in trie {
        let (key, Value(entry)) = item.map_err(ListError::Map)?;
        let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
        entries.extend(
            prefix(length, key.data()).map(|prefix| Entry { prefix, expires_at: entry.expires_at }),
        );
    }
    Ok(entries)
}

fn is_empty<const N: usize>(trie: &Trie<N>) -> Result<bool, ListError> {
    trie.keys().next().transpose().map(|key| key.is_none()).map_err(ListError::Map)
}

fn os_error(error: &MapError) -> Option<i32> {
    if let MapError::SyscallError(error) = error {
        return error.io_error.raw_os_error();
    }
    matches!(error, MapError::KeyNotFound | MapError::ElementNotFound).then_some(libc::ENOENT)
}
