//! How the programs detect that a flow is known.

use ctguard_layout::Detection;

use super::kernel_functions::KernelFunctions;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectionChoice {
    /// Conntrack if it can be asked, else the flow cache.
    #[default]
    Auto,
    Conntrack,
    FlowCache,
}

#[derive(Debug)]
pub enum Detector {
    Conntrack(KernelFunctions),
    /// With the reason why conntrack is not asked.
    FlowCache(Detection),
}

impl Detector {
    pub(super) const fn functions(&self) -> Option<&KernelFunctions> {
        match self {
            Self::Conntrack(functions) => Some(functions),
            Self::FlowCache(_) => None,
        }
    }

    /// As the data path's environment holds it.
    pub const fn detection(&self) -> Detection {
        match self {
            Self::Conntrack(_) => Detection::Conntrack,
            Self::FlowCache(why) => *why,
        }
    }

    /// Size of the options that the data path passes to conntrack; 0 if it does not ask.
    pub fn options_bytes(&self) -> u32 {
        self.functions().map_or(0, |functions| functions.options_bytes)
    }
}
