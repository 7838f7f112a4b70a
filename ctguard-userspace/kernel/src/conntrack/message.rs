//! A message to ctnetlink, as bytes.

use netlink_packet_core::DefaultNla;

use crate::net::{emitted, netlink};

/// A whole message about entries of one address family, or of all (`AF_UNSPEC`, which is 0).
pub(super) fn message(kind: u16, flags: u16, family: u8, attributes: &[DefaultNla]) -> Vec<u8> {
    // The version, `NFNETLINK_V0`, is 0, and so is the resource.
    let mut body = vec![family, 0, 0, 0];
    body.extend(emitted(attributes));
    netlink::message(kind, flags, &body)
}
