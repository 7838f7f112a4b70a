//! What the controller found: stages and shares. The data path enforces the stricter of share and
//! ceiling.

use super::{
    grant::TIER_SLOTS,
    interface::Ceiling,
    policy::{CLASS_SLOTS, Class},
};

/// How a class of new flows is served.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Only ceilings that the operator set hold.
    #[default]
    Calm = 0,
    /// A source may have its fair share.
    Fair = 1,
    /// Strangers are challenged.
    Challenge = 2,
}

impl Stage {
    /// Its name in labels and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Fair => "fair",
            Self::Challenge => "challenge",
        }
    }

    /// The stage of this number; the strictest if there is none.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Calm,
            1 => Self::Fair,
            _ => Self::Challenge,
        }
    }
}

/// The `limits` map's only value.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A [`Stage`] by [`Class`]; the last is 0.
    pub stages: [u32; 4],
    /// 1 while any class is not calm: flows have tiers.
    pub tiers_in_use: u32,
    /// Zero.
    pub reserved: [u32; 11],
    /// Share per source by [`super::Tier`] and class; an interval of 0 is no share.
    pub shares: [[Ceiling; CLASS_SLOTS]; TIER_SLOTS],
}

impl Limits {
    /// Whether all classes are calm.
    #[inline(always)]
    pub const fn is_calm(&self) -> bool {
        self.tiers_in_use == 0
    }

    /// The stage of a class.
    #[inline(always)]
    pub const fn stage(&self, class: Class) -> Stage {
        Stage::from_number(self.stages[class as usize & 3])
    }
}

const _: () = assert!(size_of::<Limits>() == 576);
const _: () = assert!(core::mem::offset_of!(Limits, shares) == 64);
