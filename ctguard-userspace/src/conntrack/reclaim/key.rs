//! The message that deletes one entry, from the attributes that told of it.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLM_F_REQUEST, NlasIterator};

use crate::conntrack::{Entry, message::message};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 0x102;

/// `CTA_TUPLE_ORIG`, `CTA_ID`, `CTA_ZONE`; the tuple holds its own zone where only it has one.
const ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// Deletes the entry, or nothing; `None` where the kernel told no tuple or no identity. Without a
/// tuple the message would empty the whole table.
pub(super) fn deletion(entry: &Entry, attributes: &[u8]) -> Option<Vec<u8>> {
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
    let attributes: Vec<_> = [original?, id?].into_iter().chain(zone).collect();
    Some(message(DELETE, NLM_F_REQUEST, u8::try_from(family).ok()?, &attributes))
}
