//! What the kernels cost, side by side.

use super::list::Kernel;
use super::outcome::Outcome;

/// What became of one kernel.
pub(super) struct Trial {
    pub(super) kernel: &'static Kernel,
    /// The package it came from.
    pub(super) package: Option<String>,
    /// None where it was skipped.
    pub(super) outcome: Option<Outcome>,
    pub(super) seconds: u64,
}

/// Columns after the kernel's name, with the fact that each shows: of programs, the instructions
/// that the verifier processed.
const COLUMNS: [(&str, &str); 5] = [
    ("ingress, asks conntrack", "ingress_by_conntrack"),
    ("ingress, flow cache", "ingress_by_flow_cache"),
    ("egress", "egress"),
    ("egress by", "egress_by"),
    ("verdict tests", "verdict_tests"),
];

/// A table in Markdown, a line for each kernel.
pub(super) fn of(trials: &[Trial]) -> String {
    let names = COLUMNS.map(|(column, _)| column).join(" | ");
    let rule = "--- | ".repeat(COLUMNS.len());
    let mut lines = vec![
        format!("| kernel | {names} | steps passed | s | package |"),
        format!("| --- | {rule}--- | --- | --- |"),
    ];
    lines.extend(trials.iter().map(line));
    lines.join("\n")
}

fn line(trial: &Trial) -> String {
    let fact = |name| trial.outcome.as_ref().and_then(|outcome| outcome.fact(name)).unwrap_or("-");
    let facts = COLUMNS.map(|(_, name)| fact(name)).join(" | ");
    let passed = trial.outcome.as_ref().map_or(0, Outcome::passed);
    let package = trial.package.as_deref().unwrap_or("-");
    format!("| {} | {facts} | {passed} | {} | {package} |", trial.kernel.name, trial.seconds)
}
