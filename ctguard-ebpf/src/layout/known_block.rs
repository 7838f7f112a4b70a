//! The memory of the known-flows filter.

use crate::shared::Shared;

/// The bits of the tuples that share a block; `known_flows` tells what they mean. Both generations
/// lie in one cache line, since every question asks both.
#[repr(C, align(16))]
#[derive(Debug, Default)]
pub struct KnownBlock {
    /// By generation.
    pub generations: [Shared; 2],
}

const _: () = assert!(size_of::<KnownBlock>() == 16);
