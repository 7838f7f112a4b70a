//! Whether a guard that is loaded does its work, and what it costs.

use std::time::Duration;

use super::{
    finding::{Finding, Findings},
    text::{mebibytes, per_cent},
};
use crate::host::Unread;

const STATUS: &str = "ctguard status";
/// A filter or memory that is fuller begins to mistake one for another.
const CROWDED: f64 = 0.5;

/// How a guard is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub daemon_runs: bool,
    /// No heartbeat: the fallback rate holds.
    pub fallback: bool,
    pub dry_run: bool,
    /// Interfaces whose program is no longer there.
    pub detached: Vec<String>,
    /// Interfaces with a generic program, which costs more.
    pub generic: Vec<String>,
    /// Interfaces on which no SYN is answered.
    pub unanswering: Vec<String>,
    /// From where the operator came in over SSH, unless that is on the allow list.
    pub unlisted_client: Option<String>,
    /// None before the first.
    pub heartbeat_age_seconds: Option<f64>,
    /// New flows refused since the guard was loaded, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Of them while the audit went on, and how long that was.
    pub refused_meanwhile: u64,
    pub meanwhile: Duration,
    /// The last change of a stage, and when.
    pub last_stage: Option<String>,
    /// Share of the bits of the known-flows filter that are set, 0 to 1.
    pub known_flows_load: f64,
    /// Share of the places for known sources that are taken, 0 to 1.
    pub known_sources_load: f64,
    pub map_bytes: u64,
}

/// H, of the list in `docs/doctor.md`.
pub(super) fn check(guard: Result<Option<Health>, Unread>, findings: &mut Findings) {
    if let Some(Some(health)) = findings.read("guard", guard) {
        findings.add(judge(&health));
    }
}

fn judge(health: &Health) -> Vec<Finding> {
    let mut found = Vec::new();
    for interface in &health.detached {
        found.push(
            Finding::fault("guard-detached", format!("the guard is not on {interface} any more"))
                .read(STATUS, format!("{interface}: NOT ATTACHED"))
                .because("somebody replaced or removed its program: the interface is unguarded")
                .tune(format!("ctguard run -i {interface}")),
        );
    }
    if !health.daemon_runs {
        found.push(
            Finding::warning("guard-alone", "the guard has no daemon")
                .read(STATUS, if health.fallback { "the fallback rate holds" } else { "just ended" })
                .because("without one nothing follows how full the table is: a fixed rate for the whole table holds")
                .tune("ctguard run -i IFACE"),
        );
    } else if health.fallback {
        found.push(
            Finding::fault("guard-stuck", "the guard's daemon runs, and does not steer")
                .read(STATUS, "the fallback rate holds")
                .because("its heartbeat is older than two seconds: the machine gives it no time, or it cannot read the table")
                .by_hand("ctguard events"),
        );
    }
    if health.dry_run {
        found.push(
            Finding::warning("dry-run", "the guard only watches: nothing is dropped")
                .read("ctguard get", "dry-run=on")
                .because("that is for trying it out")
                .tune("ctguard set dry-run=off"),
        );
    }
    if let Some(client) = &health.unlisted_client {
        found.push(
            Finding::note("ssh-client", format!("you come from {client}, which is not on the allow list"))
                .because(format!(
                    "`ctguard allow add {client}` lets you in on a bad day too, if your address stays the same"
                )),
        );
    }
    for interface in &health.generic {
        found.push(
            Finding::note("guard-generic", format!("the guard is generic XDP on {interface}"))
                .because("it works as well as native XDP, and each packet costs more"),
        );
    }
    found.push(work(health));
    found.extend(crowded(health));
    found
}

/// What it did, does and takes.
fn work(health: &Health) -> Finding {
    let refused: u64 = health.refused.iter().map(|(_, number)| number).sum();
    let reasons = health.refused.iter().filter(|(_, number)| *number > 0);
    let reasons = reasons.map(|(reason, number)| format!("{reason} {number}"));
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    let by = if reasons.is_empty() { String::new() } else { format!(" ({reasons})") };
    let seconds = health.meanwhile.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no exact count")]
    let rate = if seconds > 0.0 { health.refused_meanwhile as f64 / seconds } else { 0.0 };
    let heartbeat = match health.heartbeat_age_seconds {
        Some(age) => format!("its heartbeat is {age:.1} s old"),
        None => "it has had no heartbeat".to_owned(),
    };
    let last = health.last_stage.as_deref().unwrap_or("none since the last boot");
    Finding::note(
        "guard",
        format!("the guard refused {refused} new flows so far{by}, {rate:.0} a second now"),
    )
    .read(STATUS, format!("maps take {}", mebibytes(health.map_bytes)))
    .because(format!(
        "{heartbeat}, its maps take {}; the last change of limits: {last}. `ctguard events` tells \
         why",
        mebibytes(health.map_bytes)
    ))
}

/// Collisions cost: of strangers' packets the fourth power of the load is asked about in vain.
fn crowded(health: &Health) -> Vec<Finding> {
    let mut found = Vec::new();
    if health.known_flows_load > CROWDED {
        let wrong = health.known_flows_load.powi(4);
        found.push(
            Finding::note(
                "guard-known-flows",
                format!("{} of the known-flows filter is set", per_cent(health.known_flows_load)),
            )
            .because(format!(
                "{} of the packets of unknown flows look known, and conntrack is asked about each \
                 of them: slower, and no less safe",
                per_cent(wrong)
            )),
        );
    }
    if health.known_sources_load > CROWDED {
        found.push(
            Finding::note(
                "guard-known-sources",
                format!(
                    "{} of the places for known sources are taken",
                    per_cent(health.known_sources_load)
                ),
            )
            .because("sources that are not remembered count as strangers under attack"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    fn worst(health: &Health) -> Option<(&'static str, Severity)> {
        let found = judge(health);
        found.iter().max_by_key(|finding| finding.severity).map(|one| (one.check, one.severity))
    }

    #[test]
    fn a_guard_that_does_its_work_is_a_note() {
        let healthy = Health { daemon_runs: true, ..Health::default() };
        assert_eq!(worst(&healthy), Some(("guard", Severity::Note)));
        let unlisted = Health { unlisted_client: Some("192.0.2.7".to_owned()), ..healthy };
        let found = judge(&unlisted);
        assert!(found.iter().any(|finding| finding.check == "ssh-client"), "{found:?}");
    }

    #[test]
    fn what_is_refused_now_is_told_with_its_reasons() {
        let health = Health {
            daemon_runs: true,
            refused: vec![("source", 7), ("grant", 3), ("deny", 0)],
            refused_meanwhile: 5,
            meanwhile: Duration::from_millis(500),
            ..Health::default()
        };
        let what = &judge(&health)[0].what;
        let told = "the guard refused 10 new flows so far (source 7, grant 3), 10 a second now";
        assert_eq!(what, told);
    }

    #[test]
    fn a_filter_is_told_only_when_it_is_crowded() {
        let checks = |known_flows_load| {
            let health = Health { daemon_runs: true, known_flows_load, ..Health::default() };
            judge(&health).iter().map(|finding| finding.check).collect::<Vec<_>>()
        };
        assert_eq!(checks(0.5), ["guard"]);
        assert_eq!(checks(0.51), ["guard", "guard-known-flows"]);
    }

    #[test]
    fn a_daemon_that_is_gone_is_told_from_one_that_is_stuck() {
        let gone = Health { fallback: true, ..Health::default() };
        assert_eq!(worst(&gone), Some(("guard-alone", Severity::Warning)));
        let stuck = Health { daemon_runs: true, ..gone };
        assert_eq!(worst(&stuck), Some(("guard-stuck", Severity::Fault)));
    }

    #[test]
    fn an_interface_that_lost_its_program_is_a_fault() {
        let health =
            Health { daemon_runs: true, detached: vec!["wan0".to_owned()], ..Health::default() };
        assert_eq!(worst(&health), Some(("guard-detached", Severity::Fault)));
    }
}
