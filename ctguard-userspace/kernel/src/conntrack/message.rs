//! A message to ctnetlink, as bytes.

use netlink_packet_core::{DefaultNla, NetlinkBuffer};

use crate::net::emitted;

/// `struct nlmsghdr`.
pub(super) const HEADER_LENGTH: usize = 16;
/// `struct nfgenmsg`: family, version (`NFNETLINK_V0`, which is 0), resource.
pub(super) const NFGENMSG_LENGTH: usize = 4;

/// A whole message about entries of one address family, or of all (`AF_UNSPEC`, which is 0).
pub(super) fn message(kind: u16, flags: u16, family: u8, attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LENGTH];
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(emitted(attributes));
    // A length beyond 32 bits is one that the kernel refuses.
    let length = bytes.len().try_into().unwrap_or(u32::MAX);
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(length);
    message.set_message_type(kind);
    message.set_flags(flags);
    bytes
}
