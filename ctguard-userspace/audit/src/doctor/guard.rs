//! Whether a loaded guard works, and what it costs.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::{
    finding::{Finding, Findings},
    text::{mebibytes, per_cent},
};
use crate::host::{Host, LISTENERS, Listener, Unread};
use ctguard_units::real;

const STATUS: &str = "ctguard status";
const DNS: u16 = 53;
/// A fuller filter or memory starts to mistake one flow for another.
const CROWDED: f64 = 0.5;

#[expect(clippy::struct_excessive_bools, reason = "they have nothing to do with each other")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub daemon_runs: bool,
    /// Without a heartbeat the fallback rate applies.
    pub fallback: bool,
    pub dry_run: bool,
    /// Interfaces that lost the program.
    pub detached: Vec<String>,
    /// Interfaces in generic XDP mode.
    pub generic: Vec<String>,
    /// Interfaces with `answer=off`.
    pub unanswering: Vec<String>,
    /// It answers challenged DNS queries (`dns=on`).
    pub answers_dns: bool,
    /// The operator's own address over SSH, unless it is on the allow list.
    pub unlisted_client: Option<String>,
    /// The allow list.
    pub allowed: Vec<IpNet>,
    /// None before the first.
    pub heartbeat_age_seconds: Option<f64>,
    /// New flows refused since the guard was loaded, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Refused during the audit, and how long it took.
    pub refused_meanwhile: u64,
    pub meanwhile: Duration,
    pub last_stage: Option<String>,
    /// Share of the bits of the known-flows filter that are set, 0 to 1.
    pub known_flows_load: f64,
    /// Share of the places for known sources that are taken, 0 to 1.
    pub known_sources_load: f64,
    pub map_bytes: u64,
}

pub(super) fn check(host: &Host, guard: Result<Option<Health>, Unread>, findings: &mut Findings) {
    if let Some(Some(health)) = findings.read("guard", guard) {
        findings.add(judge(&health));
        if !health.answers_dns {
            let tcp = findings.read("listeners", Listener::read(host)).unwrap_or_default();
            let udp = findings.read("listeners", Listener::of_udp(host)).unwrap_or_default();
            findings.add(dns(&tcp, &udp));
        }
    }
}

/// Proposed only where a resolver that comes back over TCP finds somebody.
/// Where DNS is served over TCP, if it is over both protocols.
pub(crate) fn serves_dns(tcp: &[Listener], udp: &[Listener]) -> Option<SocketAddr> {
    let serves = |sockets: &[Listener]| {
        let mut sockets = sockets.iter().filter(|socket| !socket.is_local());
        sockets.find(|socket| socket.at.port() == DNS).map(|socket| socket.at)
    };
    serves(tcp).filter(|_| serves(udp).is_some())
}

fn dns(tcp: &[Listener], udp: &[Listener]) -> Option<Finding> {
    serves_dns(tcp, udp).map(|at| {
        Finding::note("guard-dns", "DNS is served here, and the guard leaves its clients waiting")
            .read(LISTENERS[usize::from(at.is_ipv6())], at)
            .because(
                "during a UDP flood an unknown resolver's first query is lost; with dns=on the guard \
                 answers it, and the resolver comes back over TCP at once",
            )
            .tune("ctguard set dns=on")
    })
}

fn judge(health: &Health) -> Vec<Finding> {
    let detached = health.detached.iter().map(|interface| {
        let what = format!("the guard is no longer attached to {interface}");
        Finding::fault("guard-detached", what)
            .read(STATUS, format!("{interface}: NOT ATTACHED"))
            .because("another program or a user removed it; the interface is not protected")
            .tune(format!("ctguard run -i {interface}"))
    });
    let mut found: Vec<_> = detached.collect();
    if !health.daemon_runs {
        let state = if health.fallback { "fallback rate in force" } else { "just ended" };
        let alone = Finding::warning("guard-alone", "no daemon is running for the guard")
            .read(STATUS, state)
            .because(
                "nothing watches how full the table is; the guard admits new flows at a fixed rate",
            )
            .tune("ctguard run -i IFACE");
        found.push(alone);
    } else if health.fallback {
        let what = "the guard's daemon is running but does not respond";
        let stuck = Finding::fault("guard-stuck", what)
            .read(STATUS, "fallback rate in force")
            .because("its heartbeat is over two seconds old: it gets no CPU time, or cannot read the table")
            .by_hand("ctguard events");
        found.push(stuck);
    }
    let dry_run = Finding::warning("dry-run", "the guard is in dry-run mode and drops nothing")
        .read("ctguard get", "dry-run=on")
        .because("dry-run is for trying the guard out")
        .tune("ctguard set dry-run=off");
    found.extend(dry_run.when(health.dry_run));
    found.extend(health.unlisted_client.iter().map(|client| {
        let what = format!("your own address {client} is not on the allow list");
        Finding::note("ssh-client", what).because(format!(
            "`ctguard allow add {client}` lets you in during an attack too, as long as your address \
             does not change"
        ))
    }));
    found.extend(health.generic.iter().map(|interface| {
        let what = format!("the guard runs in generic XDP mode on {interface}");
        Finding::note("guard-generic", what)
            .because("it protects as well as native XDP, at more CPU time a packet")
    }));
    found.push(work(health));
    found.extend(crowded(health));
    found
}

fn work(health: &Health) -> Finding {
    let refused: u64 = health.refused.iter().map(|(_, number)| number).sum();
    let reasons = health.refused.iter().filter(|(_, number)| *number > 0);
    let reasons = reasons.map(|(reason, number)| format!("{reason} {number}"));
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    let by = if reasons.is_empty() { String::new() } else { format!(" ({reasons})") };
    let seconds = health.meanwhile.as_secs_f64();
    let rate = if seconds > 0.0 { real(health.refused_meanwhile) / seconds } else { 0.0 };
    let heartbeat = match health.heartbeat_age_seconds {
        Some(age) => format!("last heartbeat {age:.1} s ago"),
        None => "no heartbeat yet".to_owned(),
    };
    let last = health.last_stage.as_deref().unwrap_or("none since boot");
    let what = format!("the guard has refused {refused} new flows{by}, {rate:.0} a second now");
    let memory = format!("maps use {}", mebibytes(health.map_bytes));
    let why = format!(
        "{heartbeat}; its {memory}; last change of stage: {last}. `ctguard events` has the reasons"
    );
    Finding::note("guard", what).read(STATUS, memory).because(why)
}

/// With a load of p, a share p^4 of unknown flows looks known and costs a lookup.
fn crowded(health: &Health) -> impl Iterator<Item = Finding> {
    let (flows, sources) = (health.known_flows_load, health.known_sources_load);
    let what = format!("the known-flows filter is {} full", per_cent(flows));
    let wrong = per_cent(flows.powi(4));
    let filter = Finding::note("guard-known-flows", what).because(format!(
        "{wrong} of the packets of unknown flows look known and cost a lookup in conntrack: slower, \
         but as safe"
    ));
    let what = format!("the table of known sources is {} full", per_cent(sources));
    let table = Finding::note("guard-known-sources", what)
        .because("sources that it forgets are treated as unknown during an attack");
    filter.when(flows > CROWDED).into_iter().chain(table.when(sources > CROWDED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

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
    fn dns_is_proposed_where_it_is_served_over_both_protocols() {
        let at = |at: &str| [Listener { at: at.parse().unwrap(), waiting: 0 }];
        let (all, web, local) = (at("0.0.0.0:53"), at("0.0.0.0:80"), at("127.0.0.53:53"));
        assert_eq!(dns(&all, &all).map(|finding| finding.check), Some("guard-dns"));
        for (tcp, udp) in [(&web, &all), (&all, &web), (&local, &local)] {
            assert!(dns(tcp, udp).is_none(), "{tcp:?} {udp:?}");
        }
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
        let told = "the guard has refused 10 new flows (source 7, grant 3), 10 a second now";
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
