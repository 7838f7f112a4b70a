//! How new flows are told from known ones, and why conntrack is not asked.

use std::fmt::{self, Display, Formatter};

use ctguard_layout::{Detection, Environment};
use serde::Serialize;

/// `new_flow_detection` of the status.
#[derive(Debug, Serialize)]
pub(crate) struct DetectionReport {
    mode: &'static str,
    /// Why the flow cache answers; null for conntrack.
    reason: Option<&'static str>,
    #[serde(skip)]
    words: &'static str,
}

impl DetectionReport {
    pub(crate) fn new(environment: &Environment) -> Self {
        let (reason, words) = match Detection::of(environment.daemon.detection) {
            Some(Detection::Conntrack) if environment.daemon.lookup_options_bytes > 0 => {
                return Self { mode: "conntrack", reason: None, words: "by asking conntrack" };
            }
            Some(Detection::Forced) => ("forced", "--new-flow-detection says so"),
            Some(Detection::FunctionsMissing) => {
                ("functions-missing", "this kernel has no conntrack lookup for XDP programs")
            }
            Some(Detection::Refused) => {
                ("refused", "the kernel rejects the program that asks conntrack")
            }
            Some(Detection::NotLoaded) => (
                "not-loaded",
                "conntrack was not loaded at the start; when it is, start ctguard run again",
            ),
            Some(Detection::TypesUnreadable) => {
                ("types-unreadable", "the kernel's types (/sys/kernel/btf) cannot be read")
            }
            Some(Detection::OptionsUnknown) => (
                "options-unknown",
                "this kernel's conntrack lookup takes options of an unknown size",
            ),
            Some(Detection::NotPermitted) => {
                ("not-permitted", "the daemon lacks CAP_SYS_ADMIN, which asking conntrack needs")
            }
            Some(Detection::Changing) => (
                "changing",
                "a start that changes this is under way or has failed; start ctguard run again",
            ),
            Some(Detection::Conntrack) | None => ("unknown", "for an unknown reason"),
        };
        Self { mode: "flow-cache", reason: Some(reason), words }
    }

    /// Whether conntrack answers.
    pub(crate) const fn asks_conntrack(&self) -> bool {
        self.reason.is_none()
    }
}

impl Display for DetectionReport {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let by = if self.reason.is_some() { "by the flow cache: " } else { "" };
        write!(out, "{by}{}", self.words)
    }
}

#[cfg(test)]
mod tests {
    use ctguard_layout::DaemonFacts;

    use super::*;

    fn report(detection: u32, lookup_options_bytes: u32) -> (String, String) {
        let daemon = DaemonFacts { detection, lookup_options_bytes, ..DaemonFacts::default() };
        let report = DetectionReport::new(&Environment { daemon, ..Environment::default() });
        (serde_json::to_string(&report).unwrap(), report.to_string())
    }

    #[test]
    fn conntrack_needs_no_reason() {
        let (json, text) = report(Detection::Conntrack as u32, 16);
        assert_eq!(json, r#"{"mode":"conntrack","reason":null}"#);
        assert_eq!(text, "by asking conntrack");
    }

    #[test]
    fn the_flow_cache_tells_why_it_answers() {
        let (json, text) = report(Detection::Forced as u32, 0);
        assert_eq!(json, r#"{"mode":"flow-cache","reason":"forced"}"#);
        assert_eq!(text, "by the flow cache: --new-flow-detection says so");
    }

    #[test]
    fn nothing_is_claimed_of_a_program_that_cannot_ask() {
        for (detection, bytes) in [(Detection::Conntrack as u32, 0), (4711, 0)] {
            assert!(report(detection, bytes).0.contains(r#""reason":"unknown""#));
        }
    }
}
