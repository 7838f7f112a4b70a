//! Identifies one entry to ctnetlink, and builds messages that change or delete it.

use std::{borrow::Cow, net::IpAddr};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_REQUEST};

use super::{Entry, dump::GET, entry::Tuple, message::message};
use crate::net::{attribute, emitted, find, nested};

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_NEW`, which changes an existing entry, and
/// `IPCTNL_MSG_CT_DELETE`.
const CHANGE: u16 = 0x100;
const DELETE: u16 = 0x102;

/// `CTA_TUPLE_ORIG`, `CTA_TIMEOUT`, `CTA_ID`, `CTA_ZONE`. If only one direction has a zone, its tuple
/// holds it.
const ORIGINAL: u16 = 1;
const TIMEOUT: u16 = 7;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// Tens of thousands of them wait to be deleted, so it is no message yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    original: Original,
    /// A hash of the entry's address and tuple.
    pub(super) id: Option<[u8; 4]>,
    zone: Option<[u8; 2]>,
}

/// The value of `CTA_TUPLE_ORIG`, as the kernel wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Original {
    /// What most entries have: addresses, a protocol's number and two ports.
    Ports {
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        ports: [u8; 4],
    },
    Other {
        is_v4: bool,
        value: Box<[u8]>,
    },
}

impl Key {
    /// `None` without a tuple, because a message without one is about the whole table.
    pub(super) fn of(entry: &Entry, attributes: &[u8]) -> Option<Self> {
        let original = Original::of(entry, find(attributes, ORIGINAL)?);
        let id = find(attributes, ID).map(TryInto::try_into).transpose().ok()?;
        let zone = find(attributes, ZONE).map(TryInto::try_into).transpose().ok()?;
        Some(Self { original, id, zone })
    }

    /// Whether it names this entry and no later one with its tuple.
    pub(super) const fn is_of_one_entry(&self) -> bool {
        self.id.is_some()
    }

    pub(super) fn deletion(&self) -> Vec<u8> {
        self.message(DELETE, self.identity())
    }

    pub(super) fn question(&self) -> Vec<u8> {
        self.message(GET, self.identity())
    }

    pub(super) fn change_of_timeout(&self, seconds: u32) -> Vec<u8> {
        self.message(CHANGE, Some(attribute(TIMEOUT, &seconds.to_be_bytes())))
    }

    fn identity(&self) -> Option<DefaultNla> {
        self.id.map(|id| attribute(ID, &id))
    }

    fn message(&self, kind: u16, argument: Option<DefaultNla>) -> Vec<u8> {
        let original = attribute(ORIGINAL | NLA_F_NESTED, &self.original.value());
        let zone = self.zone.map(|zone| attribute(ZONE, &zone));
        let attributes: Vec<_> = [Some(original), argument, zone].into_iter().flatten().collect();
        message(kind, NLM_F_REQUEST, self.original.family(), &attributes)
    }
}

impl Original {
    fn of(entry: &Entry, value: &[u8]) -> Self {
        let Tuple { source, destination, key } = entry.original;
        let ports = key.to_be_bytes();
        let usual = Self::Ports { source, destination, protocol: entry.protocol, ports };
        if *usual.value() == *value {
            return usual;
        }
        Self::Other { is_v4: source.is_ipv4(), value: value.into() }
    }

    fn family(&self) -> u8 {
        let is_v4 = match self {
            Self::Ports { source, .. } => source.is_ipv4(),
            Self::Other { is_v4, .. } => *is_v4,
        };
        (if is_v4 { libc::AF_INET } else { libc::AF_INET6 }).to_le_bytes()[0]
    }

    fn value(&self) -> Cow<'_, [u8]> {
        let (source, destination, protocol, ports) = match self {
            Self::Ports { source, destination, protocol, ports } => {
                (source, destination, protocol, ports)
            }
            Self::Other { value, .. } => return Cow::Borrowed(value),
        };
        let address = |kinds: [u16; 2], address: &IpAddr| match address {
            IpAddr::V4(address) => attribute(kinds[0], &address.octets()),
            IpAddr::V6(address) => attribute(kinds[1], &address.octets()),
        };
        // `enum ctattr_tuple`, `ctattr_ip` and `ctattr_l4proto`, in the kernel's order.
        let addresses = [address([1, 3], source), address([2, 4], destination)];
        let transport =
            [attribute(1, &[*protocol]), attribute(2, &ports[..2]), attribute(3, &ports[2..])];
        Cow::Owned(emitted(&[nested(1, &addresses), nested(2, &transport)]))
    }
}

#[cfg(test)]
mod tests {
    use ctguard_datapath::packet::protocol;

    use super::*;
    use crate::conntrack::{
        dump::read_table,
        testing::{TestTable, Wanted, fill, status},
    };

    /// It has no ports.
    const ESP: u8 = 50;

    /// Fails when most entries of a table take a piece of the heap each, or a tuple is spelled otherwise
    /// than the kernel spells it.
    #[test]
    fn an_entry_with_ports_is_kept_in_few_bytes_and_named_as_the_kernel_names_it() {
        let Some(table) = TestTable::make("an_entry_with_ports_is_kept_in_few_bytes") else {
            return;
        };
        let v4 = (("192.0.2.1", 1), ("198.51.100.1", 443));
        let v6 = (("2001:db8::1", 2), ("2001:db8::2", 443));
        let wanted = [(protocol::TCP, v4), (protocol::UDP, v6), (ESP, v4)]
            .map(|(protocol, ends)| Wanted::new(protocol, ends.0, ends.1, status::UNREPLIED));
        let mut seen = table.run(|| {
            fill(wanted.into_iter());
            let mut seen = Vec::new();
            read_table(&mut |entry, attributes| {
                let key = Key::of(entry, attributes).unwrap();
                assert_eq!(*key.original.value(), *find(attributes, ORIGINAL).unwrap());
                seen.push((entry.protocol, matches!(key.original, Original::Ports { .. })));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            seen
        });
        seen.sort_unstable();
        assert_eq!(seen, [(protocol::TCP, true), (protocol::UDP, true), (ESP, false)]);
        assert!(size_of::<Key>() <= 48);
    }
}
