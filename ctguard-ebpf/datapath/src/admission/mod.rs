//! Admits a new flow if all its limits agree, and charges all of them or none.

pub(crate) mod grant;

use grant::Allowance;

use crate::{
    bucket::Cells,
    layout::{Ceiling, Grant, Outcome, Policy},
    units::Jiffies,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// [`Outcome::Admitted`], or why it is refused.
    pub(crate) outcome: Outcome,
    /// Whether the daemon is to be woken for another grant.
    pub(crate) wake: bool,
}

/// Cells and their rate.
pub(crate) struct Limited<'l> {
    pub(crate) cells: Cells<'l>,
    pub(crate) ceiling: &'l Ceiling,
}

impl Limited<'_> {
    /// −1 if the limit refuses a flow now, else 0.
    #[inline(always)]
    pub(crate) fn excess(&self, now: Jiffies) -> i64 {
        self.cells.excess(now.to_ticks(), self.ceiling)
    }

    #[inline(always)]
    pub(crate) fn charge(&self, now: Jiffies) {
        self.cells.charge(now.to_ticks(), self.ceiling);
    }
}

/// A flow that asks to be admitted. Only the grant limits sources on the allow list, and packets
/// that follow an admission of their tuple.
pub(crate) struct Candidate<'l> {
    pub(crate) source: Option<Limited<'l>>,
    /// −1 if its prefix is above its limit, else 0.
    pub(crate) prefix_excess: i64,
    /// −1 if its service is above its limit, else 0.
    pub(crate) service_excess: i64,
    /// The number of the [`crate::layout::Tier`] from whose grant it takes.
    pub(crate) tier: u32,
    pub(crate) follows_admission: bool,
}

/// Admits or refuses a candidate. The caller charges prefix and service of one that was admitted.
///
/// Only admitted flows charge cells, and the grant bounds them, so spoofed sources can never fill
/// the cells.
#[inline(always)]
pub(crate) fn admit(
    candidate: &Candidate<'_>,
    allowance: Allowance,
    grant: &Grant,
    policy: &Policy,
    now: Jiffies,
) -> Admission {
    let source = candidate.source.as_ref();
    let refused = |outcome| Admission { outcome, wake: false };
    if source.map_or(0, |source| source.excess(now)) != 0 {
        return refused(Outcome::RefusedSource);
    }
    if candidate.prefix_excess != 0 {
        return refused(Outcome::RefusedPrefix);
    }
    if candidate.service_excess != 0 {
        return refused(Outcome::RefusedService);
    }
    let admission = grant::take(grant, allowance, candidate, policy, now);
    if admission.outcome == Outcome::Admitted
        && let Some(source) = source
    {
        source.charge(now);
    }
    admission
}
