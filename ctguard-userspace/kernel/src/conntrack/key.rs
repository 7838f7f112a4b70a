//! What names one entry to ctnetlink, from the attributes that told of it, and messages about it.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLM_F_REQUEST, NlasIterator};

use super::{Entry, message::message};

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_NEW`, which changes an entry that is there, and
/// `IPCTNL_MSG_CT_DELETE`.
const CHANGE: u16 = 0x100;
const DELETE: u16 = 0x102;

/// `CTA_TUPLE_ORIG`, `CTA_TIMEOUT`, `CTA_ID`, `CTA_ZONE`; the tuple holds its own zone where only it
/// has one.
const ORIGINAL: u16 = 1;
const TIMEOUT: u16 = 7;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// An entry's name.
pub(super) struct Key {
    family: u8,
    original: DefaultNla,
    id: Option<DefaultNla>,
    zone: Option<DefaultNla>,
}

impl Key {
    /// None where the kernel told no tuple: without one a message would be about the whole table.
    pub(super) fn of(entry: &Entry, attributes: &[u8]) -> Option<Self> {
        let (mut original, mut id, mut zone) = (None, None, None);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.ok()?;
            let value = attribute.value();
            match attribute.kind() {
                ORIGINAL => original = Some(DefaultNla::new(ORIGINAL | NESTED, value.to_vec())),
                ID => id = Some(DefaultNla::new(ID, value.to_vec())),
                ZONE => zone = Some(DefaultNla::new(ZONE, value.to_vec())),
                _ => {}
            }
        }
        let family = match entry.original.source {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        Some(Self { family: u8::try_from(family).ok()?, original: original?, id, zone })
    }

    /// Deletes the entry, or nothing; none where the kernel told no identity.
    pub(super) fn deletion(self) -> Option<Vec<u8>> {
        let Self { family, original, id, zone } = self;
        let attributes: Vec<_> = [original, id?].into_iter().chain(zone).collect();
        Some(message(DELETE, NLM_F_REQUEST, family, &attributes))
    }

    /// Has the entry of this tuple live so much longer.
    pub(super) fn change_of_timeout(self, seconds: u32) -> Vec<u8> {
        let Self { family, original, zone, .. } = self;
        let timeout = DefaultNla::new(TIMEOUT, seconds.to_be_bytes().to_vec());
        let attributes: Vec<_> = [original, timeout].into_iter().chain(zone).collect();
        message(CHANGE, NLM_F_REQUEST, family, &attributes)
    }
}
