//! Whose flows a bar is about.

use std::fmt;

use crate::{
    legit::{FlowKind, Group},
    report::{GroupOutcome, Legitimate, Run, Success},
};

/// Whose flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// All, those from inside included.
    Everybody,
    /// Regulars, and those that hold a connection from before the flood.
    Proven,
    /// All that opened flows before the flood.
    There,
    /// All that did not.
    Newcomers,
    /// Regulars alone.
    Regulars,
    /// TCP of clients that nobody has seen before.
    FirstContact,
    /// UDP of those that are neither proven nor regulars.
    UdpOfOthers,
    /// Clients behind the router.
    Inside,
    /// Sources that each open many flows on a calm day.
    Busy,
}

impl Who {
    fn includes(self, outcome: &GroupOutcome) -> bool {
        let GroupOutcome { group, kind, .. } = outcome;
        match self {
            Self::Everybody => true,
            Self::Proven | Self::There => matches!(group, Group::Regulars | Group::Known),
            Self::Newcomers => matches!(group, Group::Strangers | Group::Newcomers),
            Self::Regulars => *group == Group::Regulars,
            Self::FirstContact => (*group, *kind) == (Group::Strangers, FlowKind::TcpInward),
            Self::UdpOfOthers => {
                matches!(group, Group::Strangers | Group::Newcomers) && *kind == FlowKind::UdpInward
            }
            Self::Inside => *group == Group::Inside,
            Self::Busy => *group == Group::Busy,
        }
    }

    fn outcomes(self, flows: &Legitimate) -> impl Iterator<Item = &GroupOutcome> {
        flows.by_group.iter().filter(move |outcome| self.includes(outcome))
    }

    /// None where nobody of them tried.
    pub(super) fn success(self, flows: &Legitimate) -> Option<Success> {
        let all = self.outcomes(flows).map(|outcome| outcome.success);
        let all = all.fold(Success::default(), Success::with);
        (all.attempted > 0).then_some(all)
    }

    /// The most that is added to a group's median time to connect: beside the same group without a
    /// flood where it was measured, else beside what took place before the flood.
    pub(super) fn median_added(self, flows: &Legitimate, baseline: Option<&Run>) -> Option<f64> {
        let before = flows.connect_before_milliseconds.map(|times| times.median);
        let without = |outcome: &GroupOutcome| match baseline {
            Some(run) => {
                let same = outcome.counterpart(run)?;
                same.connect_milliseconds.map(|times| times.median)
            }
            None => before,
        };
        let added = self
            .outcomes(flows)
            .filter_map(|outcome| Some(outcome.connect_milliseconds?.median - without(outcome)?));
        added.reduce(f64::max)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everybody => "all",
            Self::Proven => "proven and regulars",
            Self::There => "those that were there",
            Self::Newcomers => "newcomers",
            Self::Regulars => "regulars",
            Self::FirstContact => "TCP at first contact",
            Self::UdpOfOthers => "UDP of others",
            Self::Inside => "inside",
            Self::Busy => "busy sources",
        })
    }
}
