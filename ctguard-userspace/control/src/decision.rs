//! What control is told, and what it decides.

use std::time::Duration;

use ctguard_layout::{CLASSES, Ceiling, Class, Grant, Limits};

use super::{Pace, TierGrant, load::OfferedLoad, stage::Stage, tiers::TIERS};
use ctguard_units::TableSample;

/// What the operator wants of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPolicy {
    /// Target fill in parts per million of the table's maximum.
    pub target_ppm: u32,
    /// The most that a source may open in a second, by class, on the interface where it is highest.
    pub ceilings: [u32; CLASSES],
    /// What strangers may open in a second before they are challenged, by class.
    pub floors: [u32; CLASSES],
    /// Delete entries that nobody answered while the table is above its target.
    pub reclaim: bool,
}

impl ControlPolicy {
    /// New flows a second that a source may open in calm.
    pub fn ceiling(&self, class: Class) -> f64 {
        f64::from(self.ceilings[class as usize])
    }

    /// Never above the ceiling.
    pub fn floor(&self, class: Class) -> f64 {
        f64::from(self.floors[class as usize]).min(self.ceiling(class))
    }
}

/// What was seen at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'l> {
    /// Monotonic time of the snapshot.
    pub now: Duration,
    /// G by tier as the data path has it, whoever wrote it; read before A.
    pub limits: [u64; TIERS],
    /// A by tier; read before the table.
    pub admitted: [u64; TIERS],
    /// New flows admitted in all, read before A, when [`super::Controller::wants_new_flows`]: less
    /// than A, which counts packets too that rest on an admission nobody answered yet.
    pub new_flows: Option<u64>,
    /// None when the kernel's count could not be read.
    pub table: Option<TableSample>,
    /// When [`super::Controller::wants_loads`].
    pub loads: Option<&'l [OfferedLoad]>,
    /// New flows that processors may be admitting while we count.
    pub processors: u64,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What each tier may open.
    pub grants: [TierGrant; TIERS],
    /// The stage of each class.
    pub stages: [Stage; CLASSES],
    /// By tier and class, for each source; an interval of 0 is no share.
    pub shares: [[Ceiling; CLASSES]; TIERS],
    /// Entries a second to delete.
    pub reclaim: Option<f64>,
    /// When the next tick is due.
    pub pace: Pace,
    /// Stages that are other than before, and why.
    pub changes: Vec<StageChange>,
    /// The numbers behind the decision.
    pub steering: Steering,
}

impl Decision {
    /// Stages and shares as the data path reads them.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for class in Class::ALL {
            limits.stages[class as usize] = self.stages[class as usize] as u32;
        }
        limits.tiers_in_use = u32::from(self.stages.iter().any(|stage| *stage != Stage::Calm));
        for (shares, decided) in limits.shares.iter_mut().zip(self.shares) {
            for (share, decided) in shares.iter_mut().zip(decided) {
                *share = decided;
            }
        }
        limits
    }

    /// Writes G and the wake-up marks.
    pub fn write_grants(&self, grant: &Grant) {
        for (allowance, next) in grant.allowances.iter().zip(self.grants) {
            allowance.limit.store(next.limit);
            allowance.wake_at.store(next.wake_at);
        }
    }

    /// Whether admissions passed a wake-up mark before it was written, so that nobody wakes us.
    pub fn are_overtaken(&self, before: [u64; TIERS], after: [u64; TIERS]) -> bool {
        self.grants.iter().zip(before).zip(after).any(|((grant, before), after)| {
            grant.limit > before && after >= grant.wake_at && after > before
        })
    }
}

/// The numbers that decisions follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steering {
    /// Entries in proportion to the maximum.
    pub fill: f64,
    /// Entries up to the target that nobody has or is kept for.
    pub headroom: u64,
    /// Entries a second that others add; negative while more leave.
    pub others: f64,
    /// New flows a second that the table can take.
    pub budget: f64,
}

/// One class has another stage, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageChange {
    /// The class whose stage changed.
    pub class: Class,
    /// Its stage before.
    pub from: Stage,
    /// Its stage from now on.
    pub to: Stage,
    /// The numbers behind it.
    pub steering: Steering,
    /// New flows a second that strangers ask for, in this class.
    pub demand: f64,
    /// New flows a second that each of them might open unchallenged; none while that is enough.
    pub share: Option<f64>,
    /// How many they are; none until that is known.
    pub sources: Option<usize>,
}
