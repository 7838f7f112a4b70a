//! A difference in words, for whoever must find out why.

use std::fmt::Write as _;

use ctguard_layout::Counter;
use ctguard_tests::pinned::Counts;

/// The counters that went up, and what was taken from the grant.
pub(crate) fn counted(counts: &Counts) -> String {
    let mut text = String::new();
    for counter in Counter::ALL.into_iter().filter(|counter| counts.of(*counter) > 0) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{counter:?} {}, ", counts.of(counter));
    }
    format!("{text}taken {}", counts.taken)
}

/// Frames as `text2pcap` and the tests of single packets read them.
pub(crate) fn hexadecimal(frames: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for byte in frames.iter().flat_map(|frame| frame.iter().map(Some).chain([None])) {
        let _ = match byte {
            Some(byte) => write!(text, "{byte:02x}"),
            None => write!(text, " "),
        };
    }
    text.trim_end().to_owned()
}
