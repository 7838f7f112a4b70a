//! How entries that nobody answered are deleted: in passes over the table.

use std::time::Duration;

use ctguard_units::whole;

/// Passes begin no oftener.
pub const PASS_INTERVAL: Duration = Duration::from_millis(200);

/// Deletions in one pass: they take some 0.2 s.
const MOST_IN_A_PASS: u64 = 20_000;

/// Deletions of one pass at such a rate: all that is to leave within a second, but no more than a
/// pass takes.
pub fn in_a_pass(rate: f64) -> u64 {
    whole(rate).clamp(1, MOST_IN_A_PASS)
}
