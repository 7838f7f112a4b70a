//! What control is told, and what it decides.

use std::time::Duration;

use ctguard_ebpf::layout::{CLASSES, Ceiling, Class, Grant, Limits};

use super::{Pace, TableSample, TierGrant, load::OfferedLoad, stage::Stage, tiers::TIERS};

/// What the operator wants of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlPolicy {
    /// Target fill in parts per million of the table's maximum.
    pub(crate) target_ppm: u32,
    /// The most that a source may open in a second, by class, on the interface where it is highest.
    pub(crate) ceilings: [u32; CLASSES],
    /// What strangers may open in a second before they are challenged, by class.
    pub(crate) floors: [u32; CLASSES],
    /// Delete entries that nobody answered while the table is above its target.
    pub(crate) reclaim: bool,
}

impl ControlPolicy {
    pub(crate) fn ceiling(&self, class: Class) -> f64 {
        f64::from(self.ceilings[class as usize])
    }

    /// Never above the ceiling.
    pub(crate) fn floor(&self, class: Class) -> f64 {
        f64::from(self.floors[class as usize]).min(self.ceiling(class))
    }
}

/// What was seen at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot<'l> {
    pub(crate) now: Duration,
    /// G by tier as the data path has it, whoever wrote it; read before A.
    pub(crate) limits: [u64; TIERS],
    /// A by tier; read before the table.
    pub(crate) admitted: [u64; TIERS],
    /// New flows admitted in all, read before A, when [`super::Controller::wants_new_flows`]: less
    /// than A, which counts packets too that rest on an admission nobody answered yet.
    pub(crate) new_flows: Option<u64>,
    /// None when the kernel's count could not be read.
    pub(crate) table: Option<TableSample>,
    /// When [`super::Controller::wants_loads`].
    pub(crate) loads: Option<&'l [OfferedLoad]>,
    /// New flows that processors may be admitting while we count.
    pub(crate) processors: u64,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) grants: [TierGrant; TIERS],
    pub(crate) stages: [Stage; CLASSES],
    /// By tier and class, for each source; an interval of 0 is no share.
    pub(crate) shares: [[Ceiling; CLASSES]; TIERS],
    /// Entries a second to delete.
    pub(crate) reclaim: Option<f64>,
    pub(crate) pace: Pace,
    /// Stages that are other than before, and why.
    pub(crate) changes: Vec<StageChange>,
    pub(crate) steering: Steering,
}

impl Decision {
    /// Stages and shares as the data path reads them.
    pub(crate) fn limits(&self) -> Limits {
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
    pub(crate) fn write_grants(&self, grant: &Grant) {
        for (allowance, next) in grant.allowances.iter().zip(self.grants) {
            allowance.limit.store(next.limit);
            allowance.wake_at.store(next.wake_at);
        }
    }

    /// Whether admissions passed a wake-up mark before it was written, so that nobody wakes us.
    pub(crate) fn are_overtaken(&self, before: [u64; TIERS], after: [u64; TIERS]) -> bool {
        self.grants.iter().zip(before).zip(after).any(|((grant, before), after)| {
            grant.limit > before && after >= grant.wake_at && after > before
        })
    }
}

/// The numbers that decisions follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steering {
    /// Entries in proportion to the maximum.
    pub(crate) fill: f64,
    /// Entries up to the target that nobody has or is kept for.
    pub(crate) headroom: u64,
    /// Entries a second that others add; negative while more leave.
    pub(crate) others: f64,
    /// New flows a second that the table can take.
    pub(crate) budget: f64,
}

/// One class has another stage, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StageChange {
    pub(crate) class: Class,
    pub(crate) from: Stage,
    pub(crate) to: Stage,
    pub(crate) steering: Steering,
    /// New flows a second that strangers ask for, in this class.
    pub(crate) demand: f64,
    /// New flows a second that each of them might open unchallenged; none while that is enough.
    pub(crate) share: Option<f64>,
    /// How many they are; none until that is known.
    pub(crate) sources: Option<usize>,
}
