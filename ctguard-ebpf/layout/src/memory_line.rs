//! The memory of tuples and sources that are remembered for seconds.

use crate::shared::SharedWord;

/// One cache line; `memory` tells what the bits mean.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct MemoryLine {
    /// The position written last, then what is remembered.
    pub words: [SharedWord; Self::WORDS],
}

impl MemoryLine {
    /// Words in a line.
    pub const WORDS: usize = 16;
}

const _: () = assert!(size_of::<MemoryLine>() == 64);
