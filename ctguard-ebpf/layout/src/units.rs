//! One type per unit, so that jiffies are never taken for seconds.

/// A moment on the kernel's jiffies clock (`jiffies_64`, `include/linux/jiffies.h`).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Jiffies(pub u64);

impl Jiffies {
    /// The same moment in the unit of buckets.
    #[inline(always)]
    pub const fn to_ticks(self) -> Ticks {
        Ticks(self.0 << Ticks::SHIFT)
    }

    /// Jiffies from `earlier` to `self`; zero if `earlier` is later.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment or a span in 2^-16 jiffies: fine enough for ten million flows a second, and 64 bits
/// last longer than the machine.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

impl Ticks {
    /// Ticks in a jiffy as a power of two.
    pub const SHIFT: u32 = 16;
    /// Ticks in one jiffy.
    pub const PER_JIFFY: u64 = 1 << Self::SHIFT;
}

/// A moment in units of 2^`coarse_shift` jiffies, about a second: the flow cache's clock.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coarse(pub u32);

impl Coarse {
    /// The coarse moment of `now`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the flow cache compares modulo 2^28")]
    pub const fn at(now: Jiffies, shift: u32) -> Self {
        Self((now.0 >> (shift & 31)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jiffy_is_65536_ticks() {
        assert_eq!(Jiffies(3).to_ticks(), Ticks(3 * Ticks::PER_JIFFY));
    }

    #[test]
    fn a_moment_ahead_is_no_time_ago() {
        assert_eq!(Jiffies(3).since(Jiffies(5)), 0);
        assert_eq!(Jiffies(5).since(Jiffies(3)), 2);
    }
}
