//! One known source in 64 bits: the high 59 bits of its hash, then its [`Tiers`].

use crate::layout::Tier;

const FINGERPRINT: u64 = !0 << Tiers::BITS;

/// The standing of a known source: the tiers to which it belongs, and what limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiers(u32);

impl Tiers {
    /// It held connections on many days.
    pub const REGULAR: Self = Self(1);
    /// It completed a handshake in the last minutes.
    pub const PROVEN: Self = Self(1 << 1);
    /// It was proven when the guard left calm.
    pub const EARLIER: Self = Self(1 << 2);
    /// Entries that prove its address are more than its part: it is in [`Tier::AbovePart`].
    pub const ABOVE_PART: Self = Self(1 << 3);
    /// Entries that prove nothing, since anybody can send such packets, are more than its part: it
    /// is challenged like a stranger.
    pub const CHALLENGED: Self = Self(1 << 4);
    pub(super) const BITS: u32 = 5;

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is among these.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The tier in which it is served; strangers if it is only to be challenged.
    #[inline(always)]
    pub const fn tier(self) -> Tier {
        if self.has(Self::ABOVE_PART) {
            Tier::AbovePart
        } else if self.has(Self::REGULAR) {
            Tier::Regulars
        } else if self.has(Self::EARLIER) {
            Tier::Earlier
        } else if self.has(Self::PROVEN) {
            Tier::Proven
        } else {
            Tier::Strangers
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Slot(pub(super) u64);

impl Slot {
    pub(super) const fn new(hash: u64, tiers: Tiers) -> Self {
        Self(hash & FINGERPRINT | tiers.0 as u64)
    }

    /// 0 if the slot's hash is this one, else positive.
    #[inline(always)]
    pub(super) const fn difference(self, hash: u64) -> i64 {
        ((self.0 ^ hash) >> Tiers::BITS).cast_signed()
    }

    /// 0 if the slot is free, else positive.
    #[inline(always)]
    pub(super) const fn tier_bits(self) -> i64 {
        (self.0 & !FINGERPRINT).cast_signed()
    }

    #[inline(always)]
    pub(super) const fn tiers(self) -> Tiers {
        Tiers((self.0 & !FINGERPRINT) as u32)
    }
}
