//! Memory that each CPU has for itself, and that userspace never reads.

use core::{array, cell::Cell};

use super::{admit::Decided, opening::Opening};
use crate::{
    layout::OfferedSlot,
    recent::{self, SLOTS},
    shared::Shared,
    verifier::Scratch,
};

/// One CPU's workspace.
#[repr(C)]
pub struct Workspace {
    /// The packet that asks to open a flow.
    pub(super) opening: Scratch<Opening>,
    /// What was decided on it.
    pub(super) decided: Scratch<Decided>,
    /// New flows that might have been sampled.
    offered: Cell<u32>,
    /// Tuples that went on within this second (see [`recent`]).
    recent: [Shared; SLOTS],
}

impl Workspace {
    /// Whether the next new flow is the one in [`OfferedSlot::SAMPLE`] whose offered load is
    /// written down.
    #[inline(always)]
    #[must_use]
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

impl Default for Workspace {
    fn default() -> Self {
        Self {
            opening: Scratch::default(),
            decided: Scratch::default(),
            offered: Cell::default(),
            recent: array::from_fn(|_| Shared::new(0)),
        }
    }
}
