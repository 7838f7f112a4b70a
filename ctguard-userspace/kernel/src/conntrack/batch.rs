//! Sends messages about many entries to ctnetlink in one call.

use std::io;

use netlink_packet_core::NLMSG_ERROR;
use rustix::net::RecvFlags;

use super::dump;
use crate::net::netlink::{Socket, messages, verdict};

/// Entries per call: the socket's buffer must hold an error message for each.
const MOST: usize = 64;
const BUFFER_LENGTH: usize = 1 << 13;

pub(super) struct Batch {
    socket: Socket,
    messages: Vec<u8>,
    count: usize,
    buffer: Vec<u8>,
    sent: Sent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Messages that the kernel carried out.
    pub(super) done: u64,
    /// Messages about entries that had ended or been replaced.
    pub(super) gone: u64,
}

impl Batch {
    pub(super) fn open() -> io::Result<Self> {
        let (messages, buffer) = (Vec::new(), vec![0; BUFFER_LENGTH]);
        Ok(Self { socket: dump::open()?, messages, count: 0, buffer, sent: Sent::default() })
    }

    /// Adds a message. Sends all that wait once they are many, so soon after the entries were read.
    pub(super) fn add(&mut self, message: impl IntoIterator<Item = u8>) -> io::Result<()> {
        self.messages.extend(message);
        self.count += 1;
        if self.count >= MOST { self.send() } else { Ok(()) }
    }

    /// Sends the rest; returns the result of all since the last time.
    pub(super) fn finish(&mut self) -> io::Result<Sent> {
        self.send()?;
        Ok(std::mem::take(&mut self.sent))
    }

    /// The kernel has processed all messages when `send` returns (`netlink_unicast_kernel`), and
    /// answers only those that failed.
    fn send(&mut self) -> io::Result<()> {
        let count = std::mem::take(&mut self.count) as u64;
        if count == 0 {
            return Ok(());
        }
        let sent = self.socket.send(&self.messages);
        self.messages.clear();
        sent?;
        let gone = self.failures()?;
        self.sent.gone += gone;
        self.sent.done += count.saturating_sub(gone);
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

/// Counts entries that were gone; fails with any other error.
fn failures(datagram: &[u8]) -> io::Result<u64> {
    let mut failed = 0;
    for message in messages(datagram) {
        let message = message?;
        if message.message_type() != NLMSG_ERROR {
            continue;
        }
        match verdict(message.payload()) {
            // Ended or replaced; or in a flow table, where traffic keeps it alive (EBUSY, before
            // Linux 6.4).
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBUSY)) => {
                failed += 1;
            }
            result => result?,
        }
    }
    Ok(failed)
}
