//! Deletes entries that no answer has ever come for, so that a table that others have filled serves
//! again at once.
//!
//! What is found by the kernel's own filter is deleted by its original tuple, zone and `CTA_ID`
//! (`ctnetlink_del_conntrack`): the number is a hash of the entry's address and tuple, so a newer
//! entry of the same tuple is never hit. The kernel has no deletion on condition of a status. A
//! flow that is answered between its reading and its deletion, some milliseconds apart, is
//! deleted all the same: its status was that of an unanswered one when it was read. That is why
//! young entries are spared (see [`Ages`]): an answer that has not come in a second rarely comes in
//! just those milliseconds.

mod ages;
mod key;

use std::{io, ops::ControlFlow, os::fd::OwnedFd};

use netlink_packet_core::{ErrorBuffer, NLMSG_ERROR, NetlinkBuffer};
use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send},
};
use thiserror::Error;

use super::{
    Entry,
    dump::{self, DumpError, StatusFilter, dump_filtered},
    status::{ASSURED, SEEN_REPLY},
};
pub(crate) use ages::Ages;

/// Neither answered nor ASSURED.
const UNREPLIED: StatusFilter = StatusFilter { mask: SEEN_REPLY | ASSURED, value: 0 };

/// Entries deleted by one call: each error of them, told in a message of its own, must find room in
/// the socket's buffer.
const BATCH: usize = 64;
const BUFFER_LENGTH: usize = 1 << 13;

/// What a pass over the table did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reclaimed {
    /// Entries deleted.
    pub(crate) deleted: u64,
    /// Entries that had ended, or become another's, before they could be deleted.
    pub(crate) gone: u64,
    /// Entries that were too young.
    pub(crate) spared: u64,
    /// The pass ended because it had deleted as many as it might: there may be more.
    pub(crate) has_more: bool,
}

/// Why nothing more was deleted.
#[derive(Debug, Error)]
pub(crate) enum ReclaimError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error("cannot delete connections")]
    Delete(#[source] io::Error),
}

/// Deletes up to `most` entries that `is_victim` takes, of those that never saw a reply and are no
/// younger than a second.
///
/// Blocks for a pass over the table; whoever bounds the rate calls it again with the next `most`.
pub(crate) fn reclaim(
    most: u64,
    ages: &Ages,
    mut is_victim: impl FnMut(&Entry) -> bool,
) -> Result<Reclaimed, ReclaimError> {
    let mut reclaimed = Reclaimed::default();
    if most == 0 {
        return Ok(reclaimed);
    }
    let mut deletion = Deletion::open().map_err(ReclaimError::Delete)?;
    let mut failure = None;
    let mut chosen = 0;
    dump_filtered(UNREPLIED, |entry, attributes| {
        if !is_victim(entry) {
            return ControlFlow::Continue(());
        }
        if ages.is_young(entry) {
            reclaimed.spared += 1;
            return ControlFlow::Continue(());
        }
        let Some(message) = key::deletion(entry, attributes) else {
            return ControlFlow::Continue(());
        };
        chosen += 1;
        deletion.messages.extend(message);
        deletion.count += 1;
        reclaimed.has_more = chosen == most;
        // At once, while what was read is still true.
        if deletion.count == BATCH
            && let Err(error) = deletion.send(&mut reclaimed)
        {
            failure = Some(error);
        }
        if reclaimed.has_more || failure.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    let sent = match failure {
        Some(error) => Err(error),
        None => deletion.send(&mut reclaimed),
    };
    sent.map_err(ReclaimError::Delete)?;
    Ok(reclaimed)
}

/// Deletions on their way.
struct Deletion {
    socket: OwnedFd,
    messages: Vec<u8>,
    count: usize,
    buffer: Vec<u8>,
}

impl Deletion {
    fn open() -> io::Result<Self> {
        let (messages, buffer) = (Vec::new(), vec![0; BUFFER_LENGTH]);
        Ok(Self { socket: dump::open()?, messages, count: 0, buffer })
    }

    /// The kernel has worked through all messages when `send` returns (`netlink_unicast_kernel`),
    /// and tells only of those that failed.
    fn send(&mut self, reclaimed: &mut Reclaimed) -> io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        send(&self.socket, &self.messages, SendFlags::empty())?;
        let failed = self.failures()?;
        reclaimed.deleted += (self.count as u64).saturating_sub(failed);
        reclaimed.gone += failed;
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

#[cfg(test)]
mod tests;
