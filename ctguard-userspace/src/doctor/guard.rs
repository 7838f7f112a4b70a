//! Whether a guard that is loaded does its work.

use super::finding::{Finding, Findings};
use crate::host::Unread;

const STATUS: &str = "ctguard status";

/// How a guard is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) daemon_runs: bool,
    /// No heartbeat: the fallback rate holds.
    pub(crate) fallback: bool,
    pub(crate) dry_run: bool,
    /// Interfaces whose program is no longer there.
    pub(crate) detached: Vec<String>,
    /// Interfaces with a generic program, which costs more.
    pub(crate) generic: Vec<String>,
    /// From where the operator came in over SSH, unless that is on the allow list.
    pub(crate) unlisted_client: Option<String>,
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
    fn a_guard_that_does_its_work_is_not_mentioned() {
        let healthy = Health { daemon_runs: true, ..Health::default() };
        assert_eq!(worst(&healthy), None);
        let listed = Health { unlisted_client: Some("192.0.2.7".to_owned()), ..healthy };
        assert_eq!(worst(&listed), Some(("ssh-client", Severity::Note)));
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
