//! State of each CPU, which userspace never reads.

use core::{array, cell::Cell};

use super::{admit::Decided, opening::Opening, tier::Standing};
use crate::{
    layout::OfferedSlot,
    recent::{self, SLOTS},
    shared::Shared,
    verifier::Scratch,
};

/// One CPU's state: the value of the map `workspace`.
#[repr(C)]
pub struct CpuState {
    /// The packet that asks to open a flow.
    pub(super) opening: Scratch<Opening>,
    /// How it is served.
    pub(super) standing: Scratch<Standing>,
    /// The decision on it.
    pub(super) decided: Scratch<Decided>,
    /// New flows counted towards the next sample.
    offered: Cell<u32>,
    /// Challenges answered and not yet added to those of all CPUs.
    pub(super) answers: Cell<u32>,
    /// Tuples seen within this second (see [`recent`]).
    recent: [Shared; SLOTS],
}

impl CpuState {
    /// Whether the next new flow is sampled: one in [`OfferedSlot::SAMPLE`] is.
    #[inline(always)]
    pub fn samples(&self) -> bool {
        let offered = self.offered.get();
        self.offered.set(offered.wrapping_add(1));
        offered.is_multiple_of(OfferedSlot::SAMPLE)
    }

    #[inline(always)]
    pub(super) fn recent(&self, hash: u64) -> &Shared {
        recent::slot(&self.recent, hash)
    }
}

impl Default for CpuState {
    fn default() -> Self {
        Self {
            opening: Scratch::default(),
            standing: Scratch::default(),
            decided: Scratch::default(),
            offered: Cell::default(),
            answers: Cell::default(),
            recent: array::from_fn(|_| Shared::new(0)),
        }
    }
}
