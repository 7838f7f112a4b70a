//! Netlink: requests and their answers, a dump of all interfaces, and the events when one changes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use netlink_packet_core::{DefaultNla, Emitable};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::SocketAddrNetlink, recv, send, socket_with,
};

use super::link::Link;

/// `RTMGRP_LINK`.
const LINK_GROUP: u32 = 1;
/// `RTEXT_FILTER_SKIP_STATS`: an interface fits in less.
const SKIP_STATISTICS: u32 = 1 << 3;
/// The kernel fills at most 32 KiB a time of a dump.
const BUFFER_LENGTH: usize = 1 << 16;
const HEADER_LENGTH: usize = 16;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Every interface of this network namespace.
pub fn links() -> io::Result<Vec<Link>> {
    // An empty `ifinfomsg`, `IFLA_EXT_MASK`.
    let mut body = vec![0; 16];
    body.extend(8u16.to_ne_bytes());
    body.extend(libc::IFLA_EXT_MASK.to_ne_bytes());
    body.extend(SKIP_STATISTICS.to_ne_bytes());
    let messages = request(libc::RTM_GETLINK, true, &body)?;
    Ok(messages
        .iter()
        .filter(|message| message.kind == libc::RTM_NEWLINK)
        .filter_map(|message| Link::parse(&message.payload))
        .collect())
}

/// A message of the kernel, without its header.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

/// Sends a request to rtnetlink and collects the answers, up to the last of a dump or the
/// acknowledgement.
pub(super) fn request(kind: u16, dump: bool, body: &[u8]) -> io::Result<Vec<Message>> {
    // NETLINK_ROUTE is the protocol of number 0.
    request_of(None, kind, dump, body)
}

/// The same of another family.
pub(super) fn request_of(
    protocol: Option<Protocol>,
    kind: u16,
    dump: bool,
    body: &[u8],
) -> io::Result<Vec<Message>> {
    let socket = open(protocol, SocketFlags::CLOEXEC, 0)?;
    let flags = NLM_F_REQUEST | if dump { NLM_F_DUMP } else { NLM_F_ACK };
    send(&socket, &message(kind, flags, body), SendFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; BUFFER_LENGTH];
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        for (kind, payload) in messages(buffer.get(..length).unwrap_or_default()) {
            match kind {
                // A dump that fails on its way ends with its error (`netlink_dump`).
                NLMSG_DONE | NLMSG_ERROR => return verdict(payload).map(|()| answers),
                _ => answers.push(Message { kind, payload: payload.to_owned() }),
            }
        }
    }
}

/// Attributes one after the other, each padded as netlink wants it.
pub fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.iter().map(Emitable::buffer_len).sum()];
    let mut rest = &mut bytes[..];
    for attribute in attributes {
        let (own, behind) = rest.split_at_mut(attribute.buffer_len());
        attribute.emit(own);
        rest = behind;
    }
    bytes
}

/// Tells that some interface changed; what changed is read by [`links`].
#[derive(Debug)]
pub struct LinkEvents(OwnedFd);

impl LinkEvents {
    /// Subscribes.
    pub fn subscribe() -> io::Result<Self> {
        open(None, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, LINK_GROUP).map(Self)
    }

    /// Forgets the events so far; an overrun is one more reason to look.
    pub fn drain(&self) {
        let mut buffer = [0; 1 << 12];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::TRUNC) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(protocol: Option<Protocol>, flags: SocketFlags, groups: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// `nlmsghdr` and what follows it.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_LENGTH + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// The whole messages in `bytes`: type and payload.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
        let payload = rest.get(HEADER_LENGTH..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// An error message of code 0 is an acknowledgement.
fn verdict(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map_or(-libc::EIO, |&bytes| i32::from_ne_bytes(bytes)) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_among_the_interfaces() {
        let links = links().unwrap();
        assert!(links.iter().any(|link| link.name == "lo"), "{links:?}");
    }

    #[test]
    fn a_message_is_as_long_as_it_says() {
        let bytes = message(libc::RTM_GETLINK, NLM_F_REQUEST, &[0; 24]);
        let (kind, payload) = messages(&bytes).next().unwrap();
        assert_eq!((kind, payload.len()), (libc::RTM_GETLINK, 24));
    }
}
