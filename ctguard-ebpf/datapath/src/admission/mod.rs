//! May a new flow pass? All that limits it is asked first, and charged only if all agree.

pub mod grant;

use grant::Allowance;

use crate::{
    bucket::Cells,
    layout::{Ceiling, Grant, Policy},
    units::Jiffies,
};

/// Why a new flow is refused.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its source asks for more than its ceiling, or its share.
    Source,
    /// Its prefix asks for more than its limit.
    Prefix,
    /// Its service is asked for more than its limit.
    Service,
    /// Strangers of its class are challenged, and it cannot be.
    Challenge,
    /// The grant is spent.
    Grant,
    /// No daemon lives, and the fallback rate is spent.
    Fallback,
}

impl Refusal {
    /// The refusal of this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Source,
            1 => Self::Prefix,
            2 => Self::Service,
            3 => Self::Challenge,
            4 => Self::Grant,
            _ => Self::Fallback,
        }
    }
}

/// What admission decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Admitted, or why not.
    pub result: Result<(), Refusal>,
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
/// packets vouched for.
pub struct Candidate<'l> {
    /// Its source.
    pub source: Option<Limited<'l>>,
    /// −1 where its prefix asks for more than its limit, else 0.
    pub prefix_excess: i64,
    /// −1 where its service is asked for more than its limit, else 0.
    pub service_excess: i64,
    /// Whose grant it takes from: the number of a [`crate::layout::Tier`].
    pub tier: u32,
    /// It rests on an admission of its tuple.
    pub vouched: bool,
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
    let refusal = if source.map_or(0, |source| source.excess(now)) != 0 {
        Some(Refusal::Source)
    } else if candidate.prefix_excess != 0 {
        Some(Refusal::Prefix)
    } else if candidate.service_excess != 0 {
        Some(Refusal::Service)
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Admission { result: Err(refusal), wake: false };
    }
    let admission = grant::take(grant, allowance, candidate, policy, now);
    if admission.result.is_ok()
        && let Some(source) = source
    {
        source.charge(now);
    }
    admission
}
