//! Flows that something is still to happen to, and who holds connections.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ctguard_control::sources::SourceScope;

use super::frame::Tuple;

/// One flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) group: usize,
    pub(super) source: u64,
    /// None of one that was recorded.
    pub(super) tuple: Option<Tuple>,
    pub(super) key: u64,
    pub(super) began: Duration,
    pub(super) tries: u32,
    /// What a challenge asked it to send back.
    pub(super) cookie: u32,
}

/// Flows that something is still to happen to.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: Vec<Flow>,
    free: Vec<usize>,
}

/// Sources that hold connections which they opened, or did until lately.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<SourceScope, Holder>);

#[derive(Clone, Copy, Debug, Default)]
struct Holder {
    open: u32,
    /// When the entry of the last one that closed ends.
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

    /// Forgets whose last entry has ended.
    pub(super) fn forget(&mut self, now: Duration) {
        self.0.retain(|_, holder| holder.open > 0 || holder.until > now);
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = SourceScope> {
        self.0.keys().copied()
    }
}

/// Recorded flows that were refused, and when first.
pub(super) type Waiting = HashMap<u64, Duration>;

impl Flows {
    pub(super) fn put(&mut self, flow: Flow) -> usize {
        if let Some(free) = self.free.pop()
            && let Some(place) = self.flows.get_mut(free)
        {
            *place = flow;
            return free;
        }
        self.flows.push(flow);
        self.flows.len() - 1
    }

    pub(super) fn take(&mut self, number: usize) -> Option<Flow> {
        let flow = self.flows.get(number).copied()?;
        self.free.push(number);
        Some(flow)
    }
}
