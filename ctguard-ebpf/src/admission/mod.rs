//! May a new flow pass? All that limits it is asked first, and charged only if all agree.

pub mod grant;

use grant::Allowance;

use crate::{
    bucket::Cells,
    layout::{Ceiling, Grant, Policy, Tier},
    units::Jiffies,
};

/// Why a new flow is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its source asks for more than its ceiling.
    Source,
    /// The grant is spent.
    Grant,
    /// No daemon lives, and the fallback rate is spent.
    Fallback,
}

/// What admission decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Admitted, or why not.
    pub result: Result<(), Refusal>,
    /// The daemon shall be woken for another grant.
    pub wake: bool,
}

/// What asks to be admitted.
pub struct Candidate<'l> {
    /// Its source's cells; sources on the allow list have none, nor have packets vouched for.
    pub cells: Option<Cells<'l>>,
    /// Its source's ceiling.
    pub ceiling: Ceiling,
    /// Whose grant it takes from.
    pub tier: Tier,
    /// It rests on an admission of its tuple.
    pub vouched: bool,
}

/// Admits a candidate or refuses it, given what is left of its grant.
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
    let ticks = now.to_ticks();
    let ceiling = &candidate.ceiling;
    if let Some(cells) = &candidate.cells
        && !cells.conform(ticks, ceiling)
    {
        return Admission { result: Err(Refusal::Source), wake: false };
    }
    let admission = grant::take(grant, allowance, candidate, policy, now);
    if admission.result.is_ok()
        && let Some(cells) = &candidate.cells
    {
        cells.charge(ticks, ceiling);
    }
    admission
}
