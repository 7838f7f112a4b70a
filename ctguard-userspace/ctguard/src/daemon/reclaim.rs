//! Deletes the entries that a tick decided to delete, and tells what that gave.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;

use super::Guard;
use crate::events::{Relief, What};
use ctguard_control::reclaim::ReclaimClass;
use ctguard_kernel::{bpf::monotonic, conntrack::Deleter};

/// Deletions are reported once none came for this long, or once they have gone on for so long.
const PAUSE: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_mins(1);

#[derive(Default)]
pub(crate) struct Reclaimer {
    deleter: Option<Deleter>,
    /// Entries deleted since the start, by class.
    pub(super) deleted: [u64; ReclaimClass::COUNT],
    /// The same at the last report.
    reported: [u64; ReclaimClass::COUNT],
    /// When the first of those that are not reported was deleted, and the last.
    unreported: Option<(Duration, Duration)>,
}

impl Reclaimer {
    pub(super) fn total(&self) -> u64 {
        self.deleted.iter().sum()
    }

    /// Those of classes that had any.
    pub(super) fn by_class(&self) -> BTreeMap<String, u64> {
        named(self.deleted)
    }
}

/// Deletes as many entries. An entry takes 2 µs, or 10 if it must be silent still, and the
/// controller wants a thousand at most.
pub(crate) fn delete(guard: &mut Guard, wanted: u64) -> anyhow::Result<()> {
    let now = monotonic();
    if wanted > 0 {
        let queue = &mut guard.looker.queue;
        let taken = queue.take(usize::try_from(wanted)?, wanted > queue.len());
        let Reclaimer { deleter, deleted, unreported, .. } = &mut guard.reclaimer;
        let deleter = match deleter {
            Some(deleter) => deleter,
            None => deleter.insert(Deleter::open().context("cannot reach ctnetlink")?),
        };
        for group in taken.chunk_by(|(class, _), (next, _)| class == next) {
            let class = group[0].0 as usize;
            let messages = group.iter().map(|(_, deletion)| deletion.clone());
            let done = if group[0].0.is_dead_weight() {
                deleter.delete(messages)
            } else {
                deleter.delete_silent(messages)
            };
            let done = done.context("cannot delete connections")?.deleted;
            deleted[class] += done;
            if done > 0 {
                unreported.get_or_insert((now, now)).1 = now;
            }
        }
    }
    if let Some((first, last)) = guard.reclaimer.unreported
        && (now >= last + PAUSE || now >= first + LONG)
    {
        report(guard);
    }
    Ok(())
}

fn report(guard: &mut Guard) {
    let reclaimer = &mut guard.reclaimer;
    let before = std::mem::replace(&mut reclaimer.reported, reclaimer.deleted);
    reclaimer.unreported = None;
    let since = std::array::from_fn(|class| reclaimer.deleted[class] - before[class]);
    guard.report(What::Reclaimed(Relief::new(named(since), &guard.looker.holders)));
}

fn named(entries: [u64; ReclaimClass::COUNT]) -> BTreeMap<String, u64> {
    ReclaimClass::named(entries).map(|(class, entries)| (class.to_owned(), entries)).collect()
}
