//! Numbers for people.

use ctguard_units::real;

/// Never rounded up to 100 %.
pub fn per_cent(ratio: f64) -> String {
    format!("{:.0} %", (ratio * 100.0).floor())
}

/// A part of `whole`, or of 1 where that is 0.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    real(part) / real(whole.max(1))
}

pub(super) fn mebibytes(bytes: u64) -> String {
    let mebibytes = real(bytes) / f64::from(1 << 20);
    if mebibytes < 10.0 { format!("{mebibytes:.1} MiB") } else { format!("{mebibytes:.0} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_not_full_is_not_shown_as_full() {
        assert_eq!(per_cent(0.999), "99 %");
        assert_eq!(per_cent(1.0), "100 %");
        assert_eq!(mebibytes(3 << 19), "1.5 MiB");
        assert_eq!(mebibytes(84 << 20), "84 MiB");
    }
}
