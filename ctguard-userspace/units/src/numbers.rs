//! Counts as real numbers, and back.

/// A count as a real number; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of entries and flows are far below 2^53")]
pub const fn real(count: u64) -> f64 {
    count as f64
}

/// A difference of counts as a real number.
pub fn real_difference(to: u64, from: u64) -> f64 {
    if to >= from { real(to - from) } else { -real(from - to) }
}

/// The whole part; 0 for a negative number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the whole part is asked for, and a float saturates"
)]
pub const fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_falls_is_a_negative_difference() {
        assert_eq!((real_difference(5, 8), real_difference(8, 5)), (-3.0, 3.0));
    }
}
