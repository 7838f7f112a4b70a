//! Who sends new flows to the plant, and what became of them.

use ctguard_layout::Class;

use super::{FOREVER, SECOND};
use crate::tiers::Tier;
use ctguard_units::real;

/// Who sends, as one.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Group {
    pub(in super::super) tier: Tier,
    pub(in super::super) class: Class,
    /// 0: each flow is of another, spoofed source.
    pub(in super::super) sources: u32,
    /// New flows a second, together.
    pub(in super::super) rate: f64,
    /// How long an entry lives, in milliseconds; 0: it never becomes one.
    pub(in super::super) lifetime: u64,
    /// The age from which on its entries can be reclaimed, in milliseconds.
    pub(in super::super) reclaimable_after: u64,
    /// Whether the kernel would replace its entries.
    pub(in super::super) is_replaceable: bool,
    /// Whether it comes by a guarded interface.
    pub(in super::super) is_guarded: bool,
    /// From when until when, in milliseconds.
    pub(in super::super) from: u64,
    pub(in super::super) until: u64,
}

#[derive(Debug, Default)]
pub(super) struct Sender {
    pub(super) next: f64,
    pub(super) arrivals: Vec<u64>,
    /// Flows of each source since the last scan, as strangers and in all, and their average.
    pub(super) seen: Vec<[u64; 2]>,
    pub(super) average: Vec<[f64; 2]>,
    pub(super) offered: u64,
    pub(super) admitted: u64,
    pub(super) admitted_by_source: Vec<u64>,
}

/// What became of one group, counted from [`Plant::count_from`] on.
#[derive(Clone, Debug)]
pub(in super::super) struct Outcome {
    pub(in super::super) offered: u64,
    pub(in super::super) admitted: u64,
    pub(in super::super) by_source: Vec<u64>,
}

impl Outcome {
    pub(in super::super) fn success(&self) -> f64 {
        real(self.admitted) / real(self.offered.max(1))
    }

    /// Jain's index.
    pub(in super::super) fn fairness(&self) -> f64 {
        let sum: f64 = self.by_source.iter().map(|&flows| real(flows)).sum();
        let squares: f64 = self.by_source.iter().map(|&flows| real(flows).powi(2)).sum();
        sum * sum / (real(self.by_source.len() as u64) * squares)
    }
}

/// A flood of sources that spoof, each flow of another.
pub(in super::super) fn spoofed(class: Class, rate: f64, lifetime: u64) -> Group {
    Group {
        class,
        sources: 0,
        reclaimable_after: SECOND,
        is_replaceable: true,
        ..live(Tier::Strangers, 0, rate, lifetime)
    }
}

/// Somebody answers them, and nobody that.
pub(in super::super) fn half_open(group: Group) -> Group {
    Group { reclaimable_after: 5 * SECOND, ..group }
}

pub(in super::super) fn live(tier: Tier, sources: u32, rate: f64, lifetime: u64) -> Group {
    Group {
        tier,
        class: Class::Tcp,
        sources,
        rate,
        lifetime,
        reclaimable_after: FOREVER,
        is_replaceable: false,
        is_guarded: true,
        from: 0,
        until: FOREVER,
    }
}

/// The guard does not judge it.
pub(in super::super) fn unguarded(group: Group) -> Group {
    Group { is_guarded: false, sources: 0, ..group }
}

pub(in super::super) fn starting(second: u64, group: Group) -> Group {
    Group { from: second * SECOND, ..group }
}
