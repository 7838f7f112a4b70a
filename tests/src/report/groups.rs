//! How each group of clients fared, by protocol.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConnectTimes, Run, Success, legitimate::milliseconds};
use crate::legit::{Flow, FlowKind, Group};

/// Flows of one group, direction and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupOutcome {
    /// Whose they are.
    pub group: Group,
    /// Direction and protocol.
    pub kind: FlowKind,
    /// How many succeeded.
    pub success: Success,
    /// Time that TCP took to connect.
    pub connect_milliseconds: Option<ConnectTimes>,
}

impl GroupOutcome {
    /// The same group and kind in another run.
    #[must_use]
    pub fn counterpart<'r>(&self, run: &'r Run) -> Option<&'r Self> {
        let same = |other: &&Self| (other.group, other.kind) == (self.group, self.kind);
        run.legitimate.by_group.iter().find(same)
    }
}

/// Sums flows up by group and kind, in the order in which groups are shown.
pub(super) fn sum_up<'f>(flows: impl Iterator<Item = &'f Flow>) -> Vec<GroupOutcome> {
    let mut sums: BTreeMap<(Group, FlowKind), (Success, Vec<f64>)> = BTreeMap::new();
    for flow in flows {
        let (success, connects) = sums.entry((flow.group, flow.kind)).or_default();
        success.count(flow.outcome);
        connects.extend(flow.connect.map(milliseconds));
    }
    let outcomes = sums.into_iter().map(|((group, kind), (success, connects))| GroupOutcome {
        group,
        kind,
        success,
        connect_milliseconds: ConnectTimes::of(connects),
    });
    outcomes.collect()
}
