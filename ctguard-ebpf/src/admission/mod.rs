//! May a new flow pass? All that limits it is asked first, and charged only if all agree.

pub mod grant;

use crate::{
    bucket::Cells,
    layout::{Ceiling, Environment, Grant, Policy, Tier},
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

/// Admits a new flow or refuses it.
///
/// `cells` are the source's; sources on the allow list have none. A flow that one limit refuses
/// charges no other, so cells are charged only by what was admitted, which the grant bounds:
/// spoofed sources can never fill them.
#[inline(always)]
pub fn admit(
    cells: Option<&Cells<'_>>,
    ceiling: &Ceiling,
    tier: Tier,
    grant: &Grant,
    policy: &Policy,
    environment: &Environment,
    now: Jiffies,
) -> Admission {
    let ticks = now.to_ticks();
    if let Some(cells) = cells
        && !cells.conform(ticks, ceiling)
    {
        return Admission { result: Err(Refusal::Source), wake: false };
    }
    let admission = grant::take(grant, tier, policy, environment, now);
    if admission.result.is_ok()
        && let Some(cells) = cells
    {
        cells.charge(ticks, ceiling);
    }
    admission
}
