//! How the kernel refused a program.

use std::fmt::{self, Display, Formatter};

use aya::programs::ProgramError;
use log::debug;

/// The kernel's error and the verifier's reason. The reason is the last line of the verifier's log
/// before its statistics; the log may have a million lines, and is written at level debug.
#[derive(Debug)]
pub struct Refusal {
    error: String,
    reason: Option<String>,
}

impl Refusal {
    pub(super) fn new(error: &impl Display, log: &str) -> Self {
        let reason = decisive_line(log).map(ToOwned::to_owned);
        if reason.is_some() {
            debug!("the verifier's log:\n{log}");
        }
        Self { error: error.to_string(), reason }
    }
}

impl From<&ProgramError> for Refusal {
    fn from(error: &ProgramError) -> Self {
        if let ProgramError::LoadError { io_error, verifier_log } = error {
            Self::new(io_error, &verifier_log.to_string())
        } else {
            Self::new(error, "")
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { error, reason } = self;
        match reason {
            Some(reason) => {
                write!(out, "({error}): {reason} (RUST_LOG=ctguard=debug shows the verifier's log)")
            }
            None => write!(out, "({error}), without a reason"),
        }
    }
}

fn decisive_line(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    let is_reason = |line: &&str| {
        !line.trim().is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start))
    };
    log.lines().rfind(is_reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_line_before_the_sums() {
        let log = "0: R1=ctx() R10=fp0\n5: (85) call bpf_xdp_ct_lookup#66126\n\
                   calling kernel function bpf_xdp_ct_lookup is not allowed\n\
                   verification time 12 usec\nstack depth 16\nprocessed 6 insns (limit 1000000)\n\n";
        let text = Refusal::new(&"Permission denied", log).to_string();
        let expected =
            "(Permission denied): calling kernel function bpf_xdp_ct_lookup is not allowed (";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_refusal_before_the_verifier_has_no_reason() {
        let text = Refusal::new(&"Invalid argument", "").to_string();
        assert_eq!(text, "(Invalid argument), without a reason");
    }
}
