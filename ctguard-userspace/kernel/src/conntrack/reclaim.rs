//! Deletes unreplied entries, so that a table that a flood has filled has room again at once.
//!
//! The kernel's filter by status finds them. Each is deleted by original tuple, zone and `CTA_ID`
//! (`ctnetlink_del_conntrack`), a hash of the entry's address and tuple, so a newer entry with the
//! same tuple is never hit. The kernel cannot delete on condition of a status: an entry whose reply
//! arrives in the milliseconds between dump and deletion is deleted too. That is why young entries
//! are spared (see [`Ages`]): a reply that has not come in a second rarely comes in just those
//! milliseconds.

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

const UNREPLIED: StatusFilter = StatusFilter { mask: SEEN_REPLY | ASSURED, value: 0 };

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    pub deleted: u64,
    /// Entries that had ended or been replaced before they could be deleted.
    pub gone: u64,
    /// Entries that were too young.
    pub spared: u64,
    /// The pass reached its maximum: there may be more.
    pub has_more: bool,
}

#[derive(Debug, Error)]
pub enum ReclaimError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error("cannot delete connections")]
    Delete(#[source] io::Error),
}

/// Deletes up to `most` unreplied entries that are older than a second and that `is_victim` selects.
///
/// Blocks for a pass over the table. To bound the rate, call it with a small `most` at intervals.
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
