//! How many entries one pass over the table deletes.

use ctguard_units::whole;

use crate::tuning::TUNING;

/// The entries of one second at `rate` per second, bounded by what one pass can do.
pub fn entries(rate: f64) -> u64 {
    whole(rate).clamp(1, TUNING.most_in_a_pass)
}
