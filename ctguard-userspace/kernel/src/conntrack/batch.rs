//! Messages about many entries, sent to ctnetlink together.

use std::{io, os::fd::OwnedFd};

use netlink_packet_core::{ErrorBuffer, NLMSG_ERROR, NetlinkBuffer};
use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
};

use super::dump;

/// Entries of one call: each error of them, told in a message of its own, must find room in the
/// socket's buffer.
const MOST: usize = 64;
const BUFFER_LENGTH: usize = 1 << 13;

/// Messages on their way.
pub(super) struct Batch {
    socket: OwnedFd,
    messages: Vec<u8>,
    count: usize,
    buffer: Vec<u8>,
    sent: Sent,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// The kernel did as they say.
    pub(super) done: u64,
    /// The entry had ended, or become another's, before.
    pub(super) gone: u64,
}

impl Batch {
    pub(super) fn open() -> io::Result<Self> {
        let (messages, buffer) = (Vec::new(), vec![0; BUFFER_LENGTH]);
        Ok(Self { socket: dump::open()?, messages, count: 0, buffer, sent: Sent::default() })
    }

    /// Adds a message, and sends those that are waiting when they are many: soon after the entries
    /// were read.
    pub(super) fn add(&mut self, message: impl IntoIterator<Item = u8>) -> io::Result<()> {
        self.messages.extend(message);
        self.count += 1;
        if self.count >= MOST { self.send() } else { Ok(()) }
    }

    /// Sends the rest; what became of all.
    pub(super) fn finish(mut self) -> io::Result<Sent> {
        self.send()?;
        Ok(self.sent)
    }

    /// The kernel has worked through all messages when `send` returns (`netlink_unicast_kernel`),
    /// and tells only of those that failed.
    fn send(&mut self) -> io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        send(&self.socket, &self.messages, SendFlags::empty())?;
        let gone = self.failures()?;
        self.sent.gone += gone;
        self.sent.done += (self.count as u64).saturating_sub(gone);
        self.messages.clear();
        self.count = 0;
        Ok(())
    }

    fn failures(&mut self) -> io::Result<u64> {
        let mut failed = 0;
        loop {
            let received =
                retry_on_intr(|| recv(&self.socket, &mut *self.buffer, RecvFlags::DONTWAIT));
            match received {
                Ok((length, _)) => {
                    failed += failures(self.buffer.get(..length).unwrap_or_default())?;
                }
                Err(Errno::AGAIN) => return Ok(failed),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Counts the entries that were gone; every other refusal ends it.
fn failures(mut messages: &[u8]) -> io::Result<u64> {
    let mut failed = 0;
    while let Ok(message) = NetlinkBuffer::new_checked(messages) {
        if message.message_type() == NLMSG_ERROR {
            let error = ErrorBuffer::new_checked(message.payload()).map_err(io::Error::other)?;
            match error.code().map(|code| code.get().wrapping_neg()) {
                None => {}
                // Ended or another's; or in a flow table, where traffic keeps it (EBUSY, before
                // Linux 6.4).
                Some(libc::ENOENT | libc::EBUSY) => failed += 1,
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(failed)
}
