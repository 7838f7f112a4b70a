//! How many entries a pass over the table deletes.

use ctguard_units::whole;

use crate::tuning::TUNING;

/// Deletions of one pass, at a rate in entries a second: a second's worth, bounded by what one pass
/// can do.
pub fn deletions(rate: f64) -> u64 {
    whole(rate).clamp(1, TUNING.most_in_a_pass)
}
