//! May a new flow pass? All that limits it is asked first, and charged only if all agree.

pub mod grant;

use grant::Allowance;

use crate::{
    bucket::Cells,
    layout::{Ceiling, Grant, Outcome, Policy},
    units::Jiffies,
};

/// What admission decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// [`Outcome::Admitted`], or why it is refused.
    pub outcome: Outcome,
    /// The daemon shall be woken for another grant.
    pub wake: bool,
}

/// Cells, and the rate that they are to keep.
pub struct Limited<'l> {
    /// The cells.
    pub cells: Cells<'l>,
    /// Their rate.
    pub ceiling: &'l Ceiling,
}

impl Limited<'_> {
    /// −1 where the limit refuses a flow now, else 0.
    #[inline(always)]
    #[must_use]
    pub fn excess(&self, now: Jiffies) -> i64 {
        self.cells.excess(now.to_ticks(), self.ceiling)
    }

    /// Charges one flow.
    #[inline(always)]
    pub fn charge(&self, now: Jiffies) {
        self.cells.charge(now.to_ticks(), self.ceiling);
    }
}

/// What asks to be admitted. Sources on the allow list have no limits but the grant, nor have
/// packets that rest on an admission of their tuple.
pub struct Candidate<'l> {
    /// Its source.
    pub source: Option<Limited<'l>>,
    /// −1 where its prefix asks for more than its limit, else 0.
    pub prefix_excess: i64,
    /// −1 where its service is asked for more than its limit, else 0.
    pub service_excess: i64,
    /// Whose grant it takes from: the number of a [`crate::layout::Tier`].
    pub tier: u32,
    /// It rests on an admission of its tuple (see [`crate::guard`]).
    pub rests_on_admission: bool,
}

/// Admits a candidate or refuses it, given what is left of its grant. The caller charges prefix and
/// service of one that was admitted.
///
/// One that a limit refuses charges no other, so cells are charged only by what was admitted,
/// which the grant bounds: spoofed sources can never fill them.
#[inline(always)]
pub fn admit(
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
