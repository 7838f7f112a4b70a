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

use std::{io, ops::ControlFlow};

use thiserror::Error;

use super::{
    Entry,
    batch::Batch,
    dump::{DumpError, StatusFilter, dump_filtered},
    key::Key,
    status::{ASSURED, SEEN_REPLY},
};
pub use ages::Ages;

/// Neither answered nor ASSURED.
const UNREPLIED: StatusFilter = StatusFilter { mask: SEEN_REPLY | ASSURED, value: 0 };

/// What a pass over the table did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Entries deleted.
    pub deleted: u64,
    /// Entries that had ended, or become another's, before they could be deleted.
    pub gone: u64,
    /// Entries that were too young.
    pub spared: u64,
    /// The pass ended because it had deleted as many as it might: there may be more.
    pub has_more: bool,
}

/// Why nothing more was deleted.
#[derive(Debug, Error)]
pub enum ReclaimError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error("cannot delete connections")]
    Delete(#[source] io::Error),
}

/// Deletes up to `most` entries that `is_victim` takes, of those that never saw a reply and are no
/// younger than a second.
///
/// Blocks for a pass over the table; whoever bounds the rate calls it again with the next `most`.
pub fn reclaim(
    most: u64,
    ages: &Ages,
    mut is_victim: impl FnMut(&Entry) -> bool,
) -> Result<Reclaimed, ReclaimError> {
    let mut reclaimed = Reclaimed::default();
    if most == 0 {
        return Ok(reclaimed);
    }
    let mut batch = Batch::open().map_err(ReclaimError::Delete)?;
    let mut added = Ok(());
    let mut chosen = 0;
    dump_filtered(UNREPLIED, |entry, attributes| {
        if !is_victim(entry) {
            return ControlFlow::Continue(());
        }
        if ages.is_young(entry) {
            reclaimed.spared += 1;
            return ControlFlow::Continue(());
        }
        let Some(message) = Key::of(entry, attributes).and_then(Key::deletion) else {
            return ControlFlow::Continue(());
        };
        chosen += 1;
        reclaimed.has_more = chosen == most;
        added = batch.add(message);
        if reclaimed.has_more || added.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    let sent = added.and_then(|()| batch.finish()).map_err(ReclaimError::Delete)?;
    Ok(Reclaimed { deleted: sent.done, gone: sent.gone, ..reclaimed })
}

#[cfg(test)]
mod tests;
