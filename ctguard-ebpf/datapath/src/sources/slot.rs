//! One known source in 64 bits: the high 62 bits of its hash, then proven, then regular.

const FINGERPRINT: u64 = !0 << 2;

/// The tiers of a known source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiers(u32);

impl Tiers {
    /// It held connections on many days.
    pub const REGULAR: Self = Self(1);
    /// It holds a connection that it opened.
    pub const PROVEN: Self = Self(1 << 1);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is a regular.
    #[inline(always)]
    pub const fn is_regular(self) -> bool {
        self.0 & Self::REGULAR.0 != 0
    }

    /// Whether it is proven.
    #[inline(always)]
    pub const fn is_proven(self) -> bool {
        self.0 & Self::PROVEN.0 != 0
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
        ((self.0 ^ hash) >> 2).cast_signed()
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
