//! Flows, and the sources that hold connections.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ctguard_control::sources::SourceScope;

use super::frame::Tuple;

#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) group: usize,
    pub(super) source: u64,
    /// `None` if the flow was recorded.
    pub(super) tuple: Option<Tuple>,
    pub(super) key: u64,
    pub(super) began: Duration,
    pub(super) tries: u32,
    /// The challenge to answer.
    pub(super) cookie: u32,
}

/// Recorded flows that were refused, and when first.
pub(super) type Waiting = HashMap<u64, Duration>;

/// Sources of ASSURED entries, as ctnetlink would list them.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<SourceScope, Holder>);

#[derive(Clone, Copy, Debug, Default)]
struct Holder {
    open: u32,
    /// When the entry of the last closed connection ends.
    until: Duration,
}

impl Holders {
    pub(super) fn opened(&mut self, source: SourceScope) {
        self.0.entry(source).or_default().open += 1;
    }

    pub(super) fn closed(&mut self, source: SourceScope, until: Duration) {
        if let Some(holder) = self.0.get_mut(&source) {
            *holder = Holder { open: holder.open.saturating_sub(1), until };
        }
    }

    pub(super) fn forget(&mut self, now: Duration) {
        self.0.retain(|_, holder| holder.open > 0 || holder.until > now);
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = SourceScope> {
        self.0.keys().copied()
    }
}
