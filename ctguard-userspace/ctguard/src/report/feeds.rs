//! What `ctguard feeds` prints, and what `ctguard status` says of feeds.

use std::io::{self, Write};

use serde::Serialize;

use ctguard_kernel::maps::Refusals;

use super::SCHEMA_VERSION;
use crate::{
    feeds::{FeedStatus, FeedsStatus},
    plural::{packets, prefixes},
};

#[derive(Debug, Serialize)]
pub(crate) struct FeedsReport {
    schema_version: u32,
    pub(crate) feeds: Vec<FeedReport>,
    /// Why the lists in the kernel are not what the feeds say.
    pub(crate) fault: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FeedReport {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) list: String,
    pub(crate) source: String,
    pub(crate) prefixes: u64,
    /// Since it was first followed; null for a feed that allows. A packet counts for one feed.
    pub(crate) refused_packets: Option<u64>,
    /// What it says beside that is not used, such as decisions about a country.
    pub(crate) ignored: u64,
    /// What is no fault, and good to know, such as that a set is not there.
    pub(crate) note: Option<String>,
    /// RFC 3339, UTC; null before the first.
    pub(crate) last_success: Option<String>,
    /// Reads that failed since the daemon started.
    pub(crate) failures: u64,
    /// Null while it can be read. Until then, what it listed before stays.
    pub(crate) fault: Option<String>,
}

impl FeedReport {
    fn new(status: FeedStatus, refusals: &Refusals) -> Self {
        let is_told = status.is_counted && status.list == "deny";
        let refused_packets = is_told.then(|| refusals.of_feed(status.slot));
        let FeedStatus { name, kind, list, source, prefixes, ignored, .. } = status;
        let FeedStatus { note, last_success, failures, fault, .. } = status;
        Self {
            name,
            kind,
            list,
            source,
            prefixes,
            refused_packets,
            ignored,
            note,
            last_success,
            failures,
            fault,
        }
    }

    /// The rest of a line; nothing for a feed that allows.
    pub(super) fn refused(&self) -> String {
        self.refused_packets
            .map_or_else(String::new, |number| format!(", {} refused", packets(number)))
    }
}

impl FeedsReport {
    pub(crate) fn new(FeedsStatus { feeds, fault }: FeedsStatus, refusals: &Refusals) -> Self {
        let feeds = feeds.into_iter().map(|status| FeedReport::new(status, refusals)).collect();
        Self { schema_version: SCHEMA_VERSION, feeds, fault }
    }

    pub(crate) fn has_fault(&self) -> bool {
        self.fault.is_some() || self.feeds.iter().any(|feed| feed.fault.is_some())
    }

    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for feed in &self.feeds {
            let FeedReport { name, kind, list, source, prefixes: number, ignored, .. } = feed;
            let refused = feed.refused();
            let beside = match ignored {
                0 => String::new(),
                ignored => format!(", {ignored} others not used"),
            };
            let note = feed.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
            let read = feed.last_success.as_deref();
            let read = read.map_or("never read".to_owned(), |at| format!("last read {at}"));
            writeln!(
                out,
                "{name}: {list}, {}{beside}{refused}, {read}, {kind} {source}{note}",
                prefixes(*number)
            )?;
            write_fault_of(feed, out)?;
        }
        self.write_own_fault(out)
    }

    /// Lines of `ctguard status`.
    pub(super) fn write_faults(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_own_fault(out)?;
        self.feeds.iter().try_for_each(|feed| write_fault_of(feed, out))
    }

    fn write_own_fault(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(fault) = &self.fault else { return Ok(()) };
        writeln!(out, "FAULT   the lists are not what the feeds say: {fault}")
    }
}

fn write_fault_of(feed: &FeedReport, out: &mut impl Write) -> io::Result<()> {
    let Some(fault) = &feed.fault else { return Ok(()) };
    writeln!(out, "FAULT   feed {}: {fault}; what it listed before stays", feed.name)
}
