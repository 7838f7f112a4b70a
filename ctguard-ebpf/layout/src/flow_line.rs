//! The memory of the flow cache.

use crate::shared::Shared;

/// One cache line of remembered flows; `flow::slot` tells what the bits mean.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct FlowLine {
    /// Remembered flows; zero is an empty slot.
    pub slots: [Shared; Self::SLOTS],
}

impl FlowLine {
    /// Slots in a line.
    pub const SLOTS: usize = 8;
}

const _: () = assert!(size_of::<FlowLine>() == 64);
