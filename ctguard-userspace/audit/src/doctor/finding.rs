//! What an audit finds.

use std::fmt::Display;

use serde::Serialize;

use crate::host::Unread;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; nothing is wrong.
    Note,
    /// Will hurt on a bad day.
    Warning,
    /// Hurts now, or does not do what somebody meant it to do.
    Fault,
}

/// What was read, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    pub place: String,
    pub value: String,
}

/// A command that mends a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// With `ctguard`, which can take it back; else by hand.
    pub reversible: bool,
    pub command: String,
}

/// One thing that an audit has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, which does not change.
    pub check: &'static str,
    pub severity: Severity,
    /// What is so, in a sentence with its numbers.
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

    /// A warning above one limit, a fault above another; nothing below both.
    pub(super) fn graded(
        check: &'static str,
        number: f64,
        [warning, fault]: [f64; 2],
        what: impl Into<String>,
    ) -> Option<Self> {
        if number >= fault {
            Some(Self::fault(check, what))
        } else if number >= warning {
            Some(Self::warning(check, what))
        } else {
            None
        }
    }

    pub(super) fn read(mut self, place: impl Into<String>, value: impl Display) -> Self {
        self.read.push(Reading { place: place.into(), value: value.to_string() });
        self
    }

    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// `ctguard` mends it.
    pub(super) fn tune(mut self, command: impl Into<String>) -> Self {
        self.mend.push(Mend { reversible: true, command: command.into() });
        self
    }

    pub(super) fn by_hand(mut self, command: impl Into<String>) -> Self {
        self.mend.push(Mend { reversible: false, command: command.into() });
        self
    }
}

/// A check that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub check: &'static str,
    pub place: String,
    pub reason: String,
}

/// All findings of an audit, as they come.
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

    /// What was read, or that it could not be.
    pub(super) fn read<T>(&mut self, check: &'static str, read: Result<T, Unread>) -> Option<T> {
        read.map_err(|Unread { place, reason }| {
            self.skipped.push(Skipped { check, place, reason });
        })
        .ok()
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
