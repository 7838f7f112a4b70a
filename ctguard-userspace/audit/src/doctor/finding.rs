//! What an audit finds.

use std::fmt::Display;

use serde::Serialize;

use crate::host::{Host, Unread, sysctl_path};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; nothing is wrong.
    Note,
    /// Will cause trouble under load.
    Warning,
    /// Causes trouble now, or does not do what it was meant to do.
    Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    pub place: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// A `ctguard` command, which can be reverted.
    pub reversible: bool,
    pub command: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, which is stable.
    pub check: &'static str,
    pub severity: Severity,
    /// What was found, in a sentence with its numbers.
    pub what: String,
    pub read: Vec<Reading>,
    /// Why it matters.
    pub why: String,
    pub mend: Vec<Mend>,
}

impl Finding {
    pub(super) fn of(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        let (read, why, mend) = (Vec::new(), String::new(), Vec::new());
        Self { check, severity, what: what.into(), read, why, mend }
    }

    pub(super) fn note(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, Severity::Note, what)
    }

    pub(super) fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, Severity::Warning, what)
    }

    pub(super) fn fault(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, Severity::Fault, what)
    }

    /// A warning from one limit on, a fault from another; nothing below both.
    pub(super) fn graded(
        check: &'static str,
        number: f64,
        [warning, fault]: [f64; 2],
        what: impl Into<String>,
    ) -> Option<Self> {
        let severity = if number >= fault { Severity::Fault } else { Severity::Warning };
        (number >= warning).then(|| Self::of(check, severity, what))
    }

    pub(super) fn read(mut self, place: impl Into<String>, value: impl Display) -> Self {
        self.read.push(Reading { place: place.into(), value: value.to_string() });
        self
    }

    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// A `ctguard` command fixes it.
    pub(super) fn tune(mut self, command: impl Into<String>) -> Self {
        self.mend.push(Mend { reversible: true, command: command.into() });
        self
    }

    pub(super) fn by_hand(mut self, command: impl Into<String>) -> Self {
        self.mend.push(Mend { reversible: false, command: command.into() });
        self
    }

    /// The same for a command that edits `file`; nobody edits the kernel's command line in `/proc`.
    pub(super) fn by_editing(self, file: &str, command: impl Into<String>) -> Self {
        if file.starts_with("/proc") { self } else { self.by_hand(command) }
    }

    pub(super) fn when(self, found: bool) -> Option<Self> {
        found.then_some(self)
    }
}

/// A check that was not possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub check: &'static str,
    pub place: String,
    pub reason: String,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) found: Vec<Finding>,
    pub(super) skipped: Vec<Skipped>,
}

impl Findings {
    pub(super) fn add(&mut self, finding: impl IntoIterator<Item = Finding>) {
        self.found.extend(finding);
    }

    pub(super) fn append(&mut self, others: Self) {
        self.found.extend(others.found);
        self.skipped.extend(others.skipped);
    }

    /// None, and a skipped check, where reading failed.
    pub(super) fn read<T>(&mut self, check: &'static str, read: Result<T, Unread>) -> Option<T> {
        read.map_err(|unread| self.skip(check, unread)).ok()
    }

    /// A file's text; empty where there is none.
    pub(super) fn text(&mut self, check: &'static str, host: &Host, path: &str) -> String {
        self.read(check, host.text(path)).flatten().unwrap_or_default()
    }

    /// The number in a sysctl, where this kernel has it.
    pub(super) fn number(&mut self, check: &'static str, host: &Host, key: &str) -> Option<u64> {
        self.read(check, host.number(&sysctl_path(key))).flatten()
    }

    pub(super) fn skip(&mut self, check: &'static str, Unread { place, reason, .. }: Unread) {
        self.skipped.push(Skipped { check, place, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_between_the_limits_is_a_warning_and_at_the_second_a_fault() {
        let graded =
            |number| Finding::graded("x", number, [0.5, 0.9], "").map(|finding| finding.severity);
        assert_eq!(graded(0.4), None);
        assert_eq!(graded(0.5), Some(Severity::Warning));
        assert_eq!(graded(0.9), Some(Severity::Fault));
    }
}
