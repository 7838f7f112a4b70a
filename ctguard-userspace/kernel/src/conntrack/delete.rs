//! Deletes entries that a dump listed.
//!
//! Each is deleted by original tuple, zone and `CTA_ID` (`ctnetlink_del_conntrack`), a hash of the
//! entry's address and tuple, so a newer entry with the same tuple is never hit. The kernel cannot
//! delete on condition of a state: an entry that saw a packet after the dump is deleted too. That is
//! why only entries are chosen that have been silent for a while.

use std::io;

use super::{Entry, batch::Batch, key::Key};

/// The message that deletes one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion(Box<[u8]>);

impl Deletion {
    /// `None` if the kernel did not identify the entry.
    pub(super) fn of(entry: &Entry, attributes: &[u8]) -> Option<Self> {
        Key::of(entry, attributes)?.deletion().map(|message| Self(message.into()))
    }
}

/// Deletes entries of the network namespace in which it was made.
pub struct Deleter(Batch);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    pub deleted: u64,
    /// Entries that had ended or been replaced before.
    pub gone: u64,
}

impl Deleter {
    pub fn open() -> io::Result<Self> {
        Batch::open().map(Self)
    }

    /// Blocks for some 2 µs an entry.
    pub fn delete(&mut self, deletions: impl IntoIterator<Item = Deletion>) -> io::Result<Deleted> {
        deletions.into_iter().try_for_each(|Deletion(message)| self.0.add(message))?;
        let sent = self.0.finish()?;
        Ok(Deleted { deleted: sent.done, gone: sent.gone })
    }
}

#[cfg(test)]
mod tests;
