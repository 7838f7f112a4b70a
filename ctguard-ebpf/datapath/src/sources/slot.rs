//! One known source in 64 bits.
//!
//! | bits | what |
//! | --- | --- |
//! | 63–2 | fingerprint: the hash's high 62 bits |
//! | 1 | proven |
//! | 0 | regular |

const FINGERPRINT: u64 = !0 << 2;

/// What a source is known as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiers(u32);

impl Tiers {
    /// It was here on other days.
    pub const REGULAR: Self = Self(1);
    /// It completed a handshake lately.
    pub const PROVEN: Self = Self(1 << 1);

    /// As both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is known as a regular.
    #[inline(always)]
    #[must_use]
    pub const fn is_regular(self) -> bool {
        self.0 & Self::REGULAR.0 != 0
    }

    /// Whether it is known as proven.
    #[inline(always)]
    #[must_use]
    pub const fn is_proven(self) -> bool {
        self.0 & Self::PROVEN.0 != 0
    }
}

/// A word of the set.
#[derive(Clone, Copy)]
pub(super) struct Slot(pub(super) u64);

impl Slot {
    pub(super) const fn new(hash: u64, tiers: Tiers) -> Self {
        Self(hash & FINGERPRINT | tiers.0 as u64)
    }

    /// 0 where the word is that of this hash's source, whatever it is known as; never negative.
    #[inline(always)]
    pub(super) const fn difference(self, hash: u64) -> i64 {
        ((self.0 ^ hash) >> 2).cast_signed()
    }

    /// 0 of a free slot, else more.
    #[inline(always)]
    pub(super) const fn standing(self) -> i64 {
        (self.0 & !FINGERPRINT).cast_signed()
    }

    #[inline(always)]
    pub(super) const fn tiers(self) -> Tiers {
        Tiers((self.0 & !FINGERPRINT) as u32)
    }
}
