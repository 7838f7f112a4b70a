//! Deletes entries that a dump listed.
//!
//! Each is deleted by original tuple, zone and `CTA_ID` (`ctnetlink_del_conntrack`), a hash of the
//! entry's address and tuple, so a newer entry with the same tuple is never hit. The kernel cannot
//! delete on condition of a state: an entry that saw a packet after the dump is deleted too, unless it
//! is asked about again just before ([`Deleter::delete_silent`]). That is why only entries are chosen
//! that have been silent for a while.

use std::{
    io,
    time::{Duration, Instant},
};

use netlink_packet_core::NetlinkBuffer;
use rustix::net::RecvFlags;

use super::{
    Entry,
    batch::Batch,
    dump::{self, ENTRY},
    key::Key,
};
use crate::net::netlink::{NFGENMSG_LENGTH, Socket, messages};

/// What it takes to delete one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    key: Key,
    /// Time that it had left, and when.
    left: Option<u32>,
    listed: Instant,
}

impl Deletion {
    /// `None` if the kernel did not identify the entry.
    pub(super) fn of(entry: &Entry, attributes: &[u8]) -> Option<Self> {
        let key = Key::of(entry, attributes).filter(Key::is_of_one_entry)?;
        Some(Self { key, left: entry.timeout_seconds, listed: Instant::now() })
    }

    /// The message that asks about the entry.
    fn question(&self, number: u32) -> Vec<u8> {
        let mut message = self.key.question();
        NetlinkBuffer::new(&mut message).set_sequence_number(number);
        message
    }

    /// Whether the entry saw no packet since it was listed: each sets the time that is left anew.
    fn is_silent(&self, left: Option<u32>, passed: Duration) -> bool {
        // Both times are rounded down.
        let most = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX).saturating_add(2);
        let fell = self.left.zip(left).and_then(|(before, left)| before.checked_sub(left));
        fell.is_some_and(|fell| fell <= most)
    }
}

/// Deletes entries of the network namespace in which it was made.
pub struct Deleter {
    batch: Batch,
    asking: Socket,
    buffer: Vec<u8>,
}

/// As many answers as fit into the socket's buffer.
const ASKED_AT_ONCE: usize = 16;
const ANSWER_LENGTH: usize = 1 << 13;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    pub deleted: u64,
    /// Entries that had ended or been replaced before.
    pub gone: u64,
}

impl Deleter {
    pub fn open() -> io::Result<Self> {
        Ok(Self { batch: Batch::open()?, asking: dump::open()?, buffer: vec![0; ANSWER_LENGTH] })
    }

    /// Blocks for some 2 µs an entry.
    pub fn delete(&mut self, deletions: impl IntoIterator<Item = Deletion>) -> io::Result<Deleted> {
        deletions.into_iter().try_for_each(|deletion| self.batch.add(deletion.key.deletion()))?;
        let sent = self.batch.finish()?;
        Ok(Deleted { deleted: sent.done, gone: sent.gone })
    }

    /// The same, but spares entries that saw a packet since they were listed. Blocks for some 10 µs an
    /// entry.
    pub fn delete_silent(
        &mut self,
        deletions: impl IntoIterator<Item = Deletion>,
    ) -> io::Result<Deleted> {
        let deletions: Vec<_> = deletions.into_iter().collect();
        let mut all = Deleted::default();
        for some in deletions.chunks(ASKED_AT_ONCE) {
            let left = self.times_left(some)?;
            let silent = some.iter().zip(left);
            let silent = silent
                .filter(|(deletion, left)| deletion.is_silent(*left, deletion.listed.elapsed()));
            let Deleted { deleted, gone } =
                self.delete(silent.map(|(deletion, _)| deletion.clone()))?;
            all.deleted += deleted;
            all.gone += gone;
        }
        Ok(all)
    }

    /// `None` for an entry that is gone.
    fn times_left(&mut self, of: &[Deletion]) -> io::Result<Vec<Option<u32>>> {
        let questions = of.iter().zip(0..).map(|(deletion, number)| deletion.question(number));
        self.asking.send(&questions.collect::<Vec<_>>().concat())?;
        let mut left = vec![None; of.len()];
        // The kernel has answered all when `send` returns, as for a batch.
        loop {
            let datagram = match self.asking.receive(&mut self.buffer, RecvFlags::DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(left),
                datagram => datagram?,
            };
            for message in messages(datagram) {
                let message = message?;
                let attributes = message.payload().get(NFGENMSG_LENGTH..).unwrap_or_default();
                if message.message_type() == ENTRY
                    && let Some(entry) = Entry::decode(attributes)
                    && let Some(left) = left.get_mut(message.sequence_number() as usize)
                {
                    *left = entry.timeout_seconds;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
