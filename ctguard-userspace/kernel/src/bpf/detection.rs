//! How the loaded programs tell a new flow from a known one.

use ctguard_layout::Detection;

use super::kernel_functions::KernelFunctions;

/// What the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectionChoice {
    /// Conntrack's answer where it can be had.
    #[default]
    Auto,
    Conntrack,
    FlowCache,
}

/// What answers.
#[derive(Debug)]
pub enum Detector {
    /// Conntrack, by its functions.
    Conntrack(KernelFunctions),
    /// The flow cache, for this reason.
    FlowCache(Detection),
}

impl Detector {
    /// As the data path's environment holds it.
    pub const fn detection(&self) -> Detection {
        match self {
            Self::Conntrack(_) => Detection::Conntrack,
            Self::FlowCache(why) => *why,
        }
    }

    /// Bytes of the options that the data path hands to conntrack; 0 where it does not ask.
    pub const fn options_bytes(&self) -> u32 {
        match self {
            Self::Conntrack(functions) => functions.options_bytes,
            Self::FlowCache(_) => 0,
        }
    }
}
