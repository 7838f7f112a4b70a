//! What the controller reads and decides.

use std::time::Duration;

use ctguard_layout::{CLASSES, Ceiling, Class, Grant, Limits, Policy};

use super::{
    Pace,
    load::OfferedLoad,
    stage::Stage,
    tiers::{TIERS, Tier},
};
use ctguard_units::TableSample;

/// The operator's policy, as far as the controller needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPolicy {
    /// Target fill in parts per million of the table's maximum.
    pub target_ppm: u32,
    /// New flows per second that a source may open, by class, on the interface that allows most.
    pub ceilings: [u32; CLASSES],
    /// Whether the operator set the ceiling. A default holds only in a class that asks for more than
    /// the table can take, for sources that were not there before; the data path knows nothing of it.
    pub are_own_ceilings: [bool; CLASSES],
    /// If the share of a stranger falls below so many flows per second, strangers are challenged.
    pub floors: [u32; CLASSES],
    /// Delete entries that are of no more use when room is needed.
    pub reclaim: bool,
}

impl ControlPolicy {
    /// What `policy` says, with the highest `ceilings` of all interfaces. A dry run deletes nothing.
    pub fn of(policy: &Policy, ceilings: [u32; CLASSES]) -> Self {
        Self {
            target_ppm: policy.target_ppm,
            ceilings,
            are_own_ceilings: std::array::from_fn(|class| policy.has_own_ceiling(class)),
            floors: policy.floor,
            reclaim: !policy.has(Policy::NO_RECLAIM) && !policy.has(Policy::DRY_RUN),
        }
    }

    /// New flows per second that a source may open in calm.
    pub fn ceiling(&self, class: Class) -> f64 {
        f64::from(self.ceilings[class as usize])
    }

    /// The most that a source of this tier may open per second outside calm.
    pub(crate) fn cap(&self, tier: Tier, class: Class) -> f64 {
        // Who is proven since a moment ago may be one host that floods.
        match tier {
            Tier::Regulars | Tier::Earlier | Tier::Allowed => self.calm_cap(class),
            Tier::Strangers | Tier::Proven | Tier::Answered | Tier::Retried | Tier::AbovePart => {
                self.ceiling(class)
            }
        }
    }

    /// The most that a source may open per second in calm.
    pub(crate) fn calm_cap(&self, class: Class) -> f64 {
        let is_own = self.are_own_ceilings[class as usize];
        if is_own { self.ceiling(class) } else { f64::INFINITY }
    }

    /// The floor, but never above the ceiling.
    pub fn floor(&self, class: Class) -> f64 {
        f64::from(self.floors[class as usize]).min(self.ceiling(class))
    }
}

/// What one tick reads.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'l> {
    /// Monotonic time of the snapshot.
    pub now: Duration,
    /// G by tier, whoever wrote it; read before A.
    pub limits: [u64; TIERS],
    /// A by tier; read before the table.
    pub admitted: [u64; TIERS],
    /// New flows let in so far ([`super::LetIn`]), read before A, if
    /// [`super::Controller::wants_new_flows`]. A also counts the packets that follow an admission
    /// before its entry is answered.
    pub new_flows: Option<u64>,
    /// `None` if the kernel's count could not be read.
    pub table: Option<TableSample>,
    /// If [`super::Controller::wants_loads`].
    pub loads: Option<&'l [OfferedLoad]>,
    /// New flows that the processors may be admitting during the tick: one each.
    pub processors: u64,
    /// Entries that can be deleted at once, by the rules for their classes.
    pub reclaimable: u64,
    /// Further entries that the kernel itself would replace in a full table.
    pub replaceable: u64,
    /// Entries that the last look found and that cannot be deleted at all.
    pub firm: u64,
    /// Entries that were deleted so far.
    pub deleted: u64,
    /// Time from one look at the table to the next.
    pub look_interval: Duration,
}

/// What one tick writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// By tier.
    pub grants: [TierGrant; TIERS],
    /// The stage of each class.
    pub stages: [Stage; CLASSES],
    /// The share of each source, by tier and class; an interval of 0 means no limit.
    pub shares: [[Ceiling; CLASSES]; TIERS],
    /// Entries to delete now. If they are more than can be reclaimed, the rest are entries that the
    /// kernel itself would replace.
    pub delete: u64,
    /// New flows per second of each tier, averaged over some seconds.
    pub served: [f64; TIERS],
    /// When the next tick is due.
    pub pace: Pace,
    /// Stages that changed, and why.
    pub changes: Vec<StageChange>,
    /// The numbers behind the decision.
    pub steering: Steering,
}

/// What the daemon writes for one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierGrant {
    /// G.
    pub limit: u64,
    /// The A at which the data path wakes the daemon.
    pub wake_at: u64,
}

impl Decision {
    /// Stages and shares in the data path's layout.
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

    /// Whether A passed a wake-up mark before the mark was written: then no wake-up comes.
    pub fn are_overtaken(&self, before: [u64; TIERS], after: [u64; TIERS]) -> bool {
        self.grants.iter().zip(before).zip(after).any(|((grant, before), after)| {
            grant.limit > before && after >= grant.wake_at && after > before
        })
    }
}

/// The numbers behind a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steering {
    /// Entries in proportion to the maximum.
    pub fill: f64,
    /// Entries up to the target that are free and not reserved.
    pub headroom: u64,
    /// Entries per second that others add.
    pub others: f64,
    /// New flows per second for which there is room or can be made.
    pub budget: f64,
}

/// A change of one class's stage.
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
    /// New flows per second that strangers ask for in this class.
    pub demand: f64,
    /// Their share, if they were not challenged; `None` if all demand fits.
    pub share: Option<f64>,
    /// Number of strangers; `None` until it is known.
    pub sources: Option<usize>,
}
