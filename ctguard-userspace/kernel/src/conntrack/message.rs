//! Messages to ctnetlink.

use netlink_packet_core::DefaultNla;

use crate::net::{emitted, netlink};

/// About entries of one address family, or of all (`AF_UNSPEC`, 0).
pub(super) fn message(kind: u16, flags: u16, family: u8, attributes: &[DefaultNla]) -> Vec<u8> {
    // Version (`NFNETLINK_V0`) and resource are 0.
    let mut body = vec![family, 0, 0, 0];
    body.extend(emitted(attributes));
    netlink::message(kind, flags, &body)
}
