//! What `ctguard feeds` prints, and what `ctguard status` says of feeds.

use std::io::{self, Write};

use serde::Serialize;

use super::SCHEMA_VERSION;
use crate::feeds::{FeedStatus, FeedsStatus};

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

impl From<FeedStatus> for FeedReport {
    fn from(status: FeedStatus) -> Self {
        let FeedStatus { name, kind, list, source, .. } = status;
        let FeedStatus { prefixes, ignored, note, last_success, failures, fault, .. } = status;
        Self { name, kind, list, source, prefixes, ignored, note, last_success, failures, fault }
    }
}

impl From<FeedsStatus> for FeedsReport {
    fn from(FeedsStatus { feeds, fault }: FeedsStatus) -> Self {
        let feeds = feeds.into_iter().map(Into::into).collect();
        Self { schema_version: SCHEMA_VERSION, feeds, fault }
    }
}

impl FeedsReport {
    pub(crate) fn has_fault(&self) -> bool {
        self.fault.is_some() || self.feeds.iter().any(|feed| feed.fault.is_some())
    }

    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for feed in &self.feeds {
            let FeedReport { name, kind, list, source, prefixes, ignored, .. } = feed;
            let beside = match ignored {
                0 => String::new(),
                ignored => format!(", {ignored} others not used"),
            };
            let note = feed.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
            let read = feed.last_success.as_deref();
            let read = read.map_or("never read".to_owned(), |at| format!("last read {at}"));
            writeln!(
                out,
                "{name}: {list}, {prefixes} prefixes{beside}, {read}, {kind} {source}{note}"
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
