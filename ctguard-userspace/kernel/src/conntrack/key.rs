//! Identifies one entry to ctnetlink, and builds messages that change or delete it.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_REQUEST};

use super::{Entry, message::message};
use crate::net::{attribute, find};

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

pub(super) struct Key {
    family: u8,
    original: DefaultNla,
    id: Option<DefaultNla>,
    zone: Option<DefaultNla>,
}

impl Key {
    /// `None` without a tuple, because a message without one is about the whole table.
    pub(super) fn of(entry: &Entry, attributes: &[u8]) -> Option<Self> {
        let original = attribute(ORIGINAL | NLA_F_NESTED, find(attributes, ORIGINAL)?);
        let [id, zone] =
            [ID, ZONE].map(|kind| find(attributes, kind).map(|value| attribute(kind, value)));
        let family = match entry.original.source {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        Some(Self { family: u8::try_from(family).ok()?, original, id, zone })
    }

    /// Deletes this entry and no later one with its tuple; `None` if the kernel sent no `CTA_ID`.
    pub(super) fn deletion(self) -> Option<Vec<u8>> {
        let Self { family, original, id, zone } = self;
        let attributes: Vec<_> = [original, id?].into_iter().chain(zone).collect();
        Some(message(DELETE, NLM_F_REQUEST, family, &attributes))
    }

    pub(super) fn change_of_timeout(self, seconds: u32) -> Vec<u8> {
        let Self { family, original, zone, .. } = self;
        let timeout = attribute(TIMEOUT, &seconds.to_be_bytes());
        let attributes: Vec<_> = [original, timeout].into_iter().chain(zone).collect();
        message(CHANGE, NLM_F_REQUEST, family, &attributes)
    }
}
