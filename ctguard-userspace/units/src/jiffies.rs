//! Jiffies, computed from the monotonic clock and one reading of the kernel's count.

use std::time::Duration;

use ctguard_layout::units::Jiffies;

/// `INITIAL_JIFFIES`: the kernel's count starts five minutes before its low 32 bits wrap.
const WRAP: u64 = 1 << 32;
const HEAD_START_SECONDS: u64 = 300;

/// A reading of jiffies, extrapolated.
#[derive(Clone, Copy, Debug)]
pub struct JiffiesClock {
    jiffies: u64,
    at: Duration,
    per_second: u32,
}

impl JiffiesClock {
    /// Starts from a reading at the monotonic time `at`.
    pub fn new(jiffies: Jiffies, at: Duration, per_second: u32) -> Self {
        Self { jiffies: jiffies.0, at, per_second }
    }

    /// Jiffies at the monotonic time `at`.
    pub fn read(&self, at: Duration) -> Jiffies {
        Jiffies(self.jiffies + count(at.saturating_sub(self.at), self.per_second))
    }
}

/// The 64-bit count whose low 32 bits are `low`, at the monotonic time `at` since boot.
///
/// The monotonic clock gives the upper bits: it differs from jiffies only by what NTP slews, a day in
/// six years, and the nearest count within 2^31 is the right one.
pub fn extend(low: u32, at: Duration, per_second: u32) -> Jiffies {
    let expected = (WRAP - HEAD_START_SECONDS * u64::from(per_second)) + count(at, per_second);
    let offset = low.wrapping_sub(low_bits(expected)).cast_signed();
    Jiffies(expected.saturating_add_signed(i64::from(offset)))
}

fn low_bits(count: u64) -> u32 {
    let [a, b, c, d, ..] = count.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn count(span: Duration, per_second: u32) -> u64 {
    let count = span.as_nanos() * u128::from(per_second) / 1_000_000_000;
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 250;

    #[test]
    fn the_count_goes_on_from_a_reading() {
        let clock = JiffiesClock::new(Jiffies(1000), Duration::from_secs(5), HZ);
        assert_eq!(clock.read(Duration::from_millis(5020)), Jiffies(1005));
    }

    #[test]
    fn the_count_starts_five_minutes_before_the_low_bits_wrap() {
        let low = low_bits(WRAP - 300 * 250);
        assert_eq!(extend(low, Duration::ZERO, HZ), Jiffies(WRAP - 300 * 250));
        assert_eq!(extend(3, Duration::from_mins(5), HZ), Jiffies(WRAP + 3));
    }

    #[test]
    fn a_clock_that_is_days_off_still_tells_the_upper_bits() {
        let day = Duration::from_hours(24);
        let truth = extend(123, day * 400, HZ);
        assert_eq!(extend(low_bits(truth.0), day * 402, HZ), truth);
        assert_eq!(extend(low_bits(truth.0), day * 398, HZ), truth);
    }
}
