//! Measures this kernel's jiffies per second (`CONFIG_HZ`, which userspace cannot read).

use std::time::Duration;

/// The choices of `kernel/Kconfig.hz`.
const USUAL: [u32; 4] = [100, 250, 300, 1000];

/// A measurement this near to a usual number is rounded to it.
const TOLERANCE: f64 = 0.04;

/// The low 32 bits of jiffies, and when they were read.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The low 32 bits.
    pub low_jiffies: u32,
    /// Monotonic time of the reading.
    pub at: Duration,
}

/// Jiffies per second; `None` if the samples are too near to each other.
pub fn jiffies_per_second(first: Sample, second: Sample) -> Option<u32> {
    let elapsed = second.at.checked_sub(first.at)?.as_secs_f64();
    let jiffies = f64::from(second.low_jiffies.wrapping_sub(first.low_jiffies));
    let measured = jiffies / elapsed;
    if !measured.is_finite() || !(1.0..=100_000.0).contains(&measured) {
        return None;
    }
    let near = |usual: &u32| (measured / f64::from(*usual) - 1.0).abs() <= TOLERANCE;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 100,000, as checked above"
    )]
    let rounded = measured.round() as u32;
    Some(USUAL.into_iter().find(near).unwrap_or(rounded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_snaps_to_what_kernels_are_built_with() {
        assert_eq!(measure(27, 110), Some(250));
        assert_eq!(measure(33, 110), Some(300));
        assert_eq!(measure(11, 110), Some(100));
        assert_eq!(measure(111, 110), Some(1000));
    }

    #[test]
    fn an_unusual_kernel_is_taken_as_measured() {
        assert_eq!(measure(200, 1000), Some(200));
    }

    #[test]
    fn a_wrap_of_the_low_bits_does_no_harm() {
        let first = Sample { low_jiffies: u32::MAX - 4, at: Duration::ZERO };
        let second = Sample { low_jiffies: 20, at: Duration::from_millis(100) };
        assert_eq!(jiffies_per_second(first, second), Some(250));
    }

    #[test]
    fn samples_of_one_moment_measure_nothing() {
        assert_eq!(measure(0, 0), None);
        assert_eq!(measure(0, 100), None);
    }

    fn measure(jiffies: u32, milliseconds: u64) -> Option<u32> {
        jiffies_per_second(
            Sample { low_jiffies: 7, at: Duration::from_secs(5) },
            Sample {
                low_jiffies: 7 + jiffies,
                at: Duration::from_secs(5) + Duration::from_millis(milliseconds),
            },
        )
    }
}
