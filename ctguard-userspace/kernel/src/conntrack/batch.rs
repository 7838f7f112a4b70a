//! Messages about many entries, sent to ctnetlink together.

use std::io;

use netlink_packet_core::NLMSG_ERROR;
use rustix::net::RecvFlags;

use super::dump;
use crate::net::netlink::{Socket, messages, verdict};

/// Entries of one call: each error of them, told in a message of its own, must find room in the
/// socket's buffer.
const MOST: usize = 64;
const BUFFER_LENGTH: usize = 1 << 13;

/// Messages on their way.
pub(super) struct Batch {
    socket: Socket,
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
        self.socket.send(&self.messages)?;
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
            match self.socket.receive(&mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(datagram) => failed += failures(datagram)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(failed),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Counts the entries that were gone; every other refusal ends it.
fn failures(datagram: &[u8]) -> io::Result<u64> {
    let mut failed = 0;
    for message in messages(datagram) {
        let message = message?;
        if message.message_type() != NLMSG_ERROR {
            continue;
        }
        match verdict(message.payload()) {
            // Ended or another's; or in a flow table, where traffic keeps it (EBUSY, before
            // Linux 6.4).
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBUSY)) => {
                failed += 1;
            }
            told => told?,
        }
    }
    Ok(failed)
}
