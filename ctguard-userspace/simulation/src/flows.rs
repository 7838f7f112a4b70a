//! Flows that have begun.

use std::{collections::HashMap, time::Duration};

use ctguard_control::sources::SourceScope;

use super::frame::{Opening, Tuple};

#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) group: usize,
    pub(super) source: u64,
    pub(super) scope: SourceScope,
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

impl Flow {
    /// A recorded flow, before its first try.
    pub(super) const fn new(group: usize, opening: Opening, began: Duration) -> Self {
        let Opening { key, scope, .. } = opening;
        Self { group, source: 0, scope, tuple: None, key, began, tries: 1, cookie: 0 }
    }
}
