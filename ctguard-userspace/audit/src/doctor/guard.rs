//! Whether a loaded guard works, and what it costs.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

use super::{
    finding::{Finding, Findings},
    text::{mebibytes, per_cent},
};
use crate::host::{Host, LISTENERS, Listener, Unread};
use ctguard_units::real;

/// Starts a guard, where none is known to run: [`advise`] replaces it where one is.
pub(super) const START: &str = "ctguard run -i IFACE";
/// How rules that exempt packets are told to a guard, likewise.
pub(super) const START_WITH_CACHE: &str = "Start it with --new-flow-detection flow-cache if they";
const STATUS: &str = "ctguard status";
const COMMENT: &str = "    #";
const DNS: u16 = 53;
/// A fuller filter or memory starts to mistake one flow for another.
const CROWDED: f64 = 0.5;

#[expect(clippy::struct_excessive_bools, reason = "they have nothing to do with each other")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub daemon_runs: bool,
    /// All that it was told to guard.
    pub interfaces: Vec<String>,
    /// New flows are told from known ones by asking conntrack, not by the flow cache.
    pub asks_conntrack: bool,
    /// Nothing is dropped for a while.
    pub is_paused: bool,
    /// Without a heartbeat the fallback rate applies.
    pub fallback: bool,
    pub dry_run: bool,
    /// Interfaces that lost the program.
    pub detached: Vec<String>,
    /// Names that it was told to guard and that it waits for; why it cannot guard those that are there.
    pub waiting: Vec<(String, Option<String>)>,
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

/// Has findings that would start a guard take the one that is loaded into account.
pub(super) fn advise(guard: &Result<Option<Health>, Unread>, findings: &mut [Finding]) {
    let health = match guard {
        Ok(None) => return,
        Ok(Some(health)) => Some(health),
        Err(_) => None,
    };
    for finding in findings {
        let mut is_guarded = false;
        for mend in &mut finding.mend {
            let Some(comment) = mend.command.strip_prefix(START) else { continue };
            is_guarded |= health.is_some_and(|health| health.daemon_runs);
            mend.command = match health {
                None if comment.is_empty() => format!("{START}{COMMENT} unless {STATUS} shows one"),
                None => format!("{START}{comment}; unless {STATUS} shows a guard"),
                Some(health) if health.daemon_runs => in_place_of_start(health),
                Some(health) => run(health),
            };
        }
        if let Some(health) = health {
            let detection = match (health.asks_conntrack, health.daemon_runs) {
                (true, true) => START_WITH_CACHE.replacen("Start it", "Restart the one here", 1),
                (true, false) => {
                    START_WITH_CACHE.replacen("Start it", "Start the one here again", 1)
                }
                (false, _) => "The one here has its flow cache, and knows them if they".to_owned(),
            };
            finding.why = finding.why.replace(START_WITH_CACHE, &detection);
            if is_guarded {
                finding.why = format!("{}. {}", finding.why, already(health));
            }
        }
    }
}

/// What helps where a daemon runs already: a second one would not start.
fn in_place_of_start(health: &Health) -> String {
    if health.is_paused {
        format!("ctguard pause --end{COMMENT} until then, the guard drops nothing")
    } else if health.dry_run {
        format!("ctguard enforce{COMMENT} shows whom the limits would refuse, asks, then drops")
    } else if health.fallback {
        format!("ctguard events{COMMENT} why the guard's daemon does not respond")
    } else {
        format!("{STATUS}{COMMENT} what the guard refuses, and who holds the most entries")
    }
}

fn already(health: &Health) -> String {
    let attached = |name: &&String| !health.detached.contains(name);
    let names: Vec<_> = health.interfaces.iter().filter(attached).map(String::as_str).collect();
    if names.is_empty() {
        return "A guard runs, and is attached to no interface".to_owned();
    }
    let names = names.join(", ");
    if health.is_paused || health.dry_run {
        return format!("A guard runs already, on {names}, and is to drop nothing");
    }
    format!(
        "A guard runs already, on {names}; what comes in elsewhere is not limited. To guard another \
         interface too, add it to the configuration and run `ctguard reload`, or restart the guard \
         with a further -i"
    )
}

/// Starts a daemon for the guard that is loaded.
fn run(health: &Health) -> String {
    if health.interfaces.is_empty() {
        return START.to_owned();
    }
    let interfaces = health.interfaces.iter().map(|name| format!(" -i {name}"));
    format!("ctguard run{}", interfaces.collect::<String>())
}

fn judge(health: &Health) -> Vec<Finding> {
    let detached = health.detached.iter().map(|interface| {
        let what = format!("the guard is no longer attached to {interface}");
        let finding = Finding::fault("guard-detached", what)
            .read(STATUS, format!("{interface}: NOT ATTACHED"))
            .because("another program or a user removed it; the interface is not protected");
        if health.daemon_runs {
            finding
                .by_hand(format!("ctguard events{COMMENT} why the daemon cannot attach it again"))
        } else {
            finding.tune(run(health))
        }
    });
    let mut found: Vec<_> = detached.chain(health.waiting.iter().map(waiting)).collect();
    if !health.daemon_runs {
        let state = if health.fallback { "fallback rate in force" } else { "just ended" };
        let alone = Finding::warning("guard-alone", "no daemon is running for the guard")
            .read(STATUS, state)
            .because(
                "nothing watches how full the table is; the guard admits new flows at a fixed rate",
            )
            .tune(run(health));
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
        .tune("ctguard enforce");
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

/// A name that is not there yet may be mistyped.
fn waiting((name, obstacle): &(String, Option<String>)) -> Finding {
    let what = format!("{name} is to be guarded and is not");
    match obstacle {
        Some(obstacle) => Finding::fault("guard-waiting", what)
            .read(STATUS, format!("waiting {name} (cannot be guarded)"))
            .because(obstacle)
            .by_hand(format!(
                "ctguard events{COMMENT} why; then name another interface, and reload or restart ctguard"
            )),
        None => Finding::warning("guard-waiting", what)
            .read(STATUS, format!("waiting {name} (not there yet)"))
            .because("no interface has that name; the guard attaches to it as soon as one has")
            .by_hand(format!(
                "ip link show {name}{COMMENT} correct the configuration if it is mistyped"
            )),
    }
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
    use crate::doctor::{finding::Severity, testing::Machine};

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
    fn an_interface_that_is_waited_for_is_a_warning_and_one_that_is_refused_a_fault() {
        let late = ("late0".to_owned(), None);
        let mut health = Health { daemon_runs: true, waiting: vec![late], ..Health::default() };
        assert_eq!(worst(&health), Some(("guard-waiting", Severity::Warning)));
        health.waiting = vec![("ppp0".to_owned(), Some("it is a PPP link".to_owned()))];
        assert_eq!(worst(&health), Some(("guard-waiting", Severity::Fault)));
    }

    fn advised(guard: &Result<Option<Health>, Unread>) -> (String, String) {
        let start = format!("{START}{COMMENT} the interface where it arrives");
        let mut flood = [Finding::fault("syn-flood", "a flood").because("it fills").tune(start)];
        advise(guard, &mut flood);
        (flood[0].mend[0].command.clone(), flood[0].why.clone())
    }

    /// Fails when somebody is told to start a guard where one runs, which would not start.
    #[test]
    fn a_guard_that_runs_is_not_to_be_started() {
        let running = Health {
            daemon_runs: true,
            interfaces: vec!["wan0".to_owned(), "lan0".to_owned()],
            detached: vec!["lan0".to_owned()],
            ..Health::default()
        };
        let (command, why) = advised(&Ok(Some(running.clone())));
        assert!(command.starts_with("ctguard status    # "), "{command}");
        assert!(why.starts_with("it fills. A guard runs already, on wan0; "), "{why}");
        let dry = Health { dry_run: true, ..running.clone() };
        assert!(advised(&Ok(Some(dry.clone()))).0.starts_with("ctguard enforce "));
        let paused = Health { is_paused: true, ..dry };
        assert!(advised(&Ok(Some(paused))).0.starts_with("ctguard pause --end "));
        let stuck = Health { fallback: true, ..running.clone() };
        assert!(advised(&Ok(Some(stuck))).0.starts_with("ctguard events "));
        for found in judge(&running) {
            let mut commands = found.mend.iter().map(|mend| mend.command.as_str());
            assert!(!commands.any(|command| command.starts_with("ctguard run")), "{found:?}");
        }
    }

    /// Fails when a check of the machine itself does not hear of the guard.
    #[test]
    fn an_audit_beside_a_guard_that_runs_starts_none() {
        let machine = Machine::healthy("guard-runs");
        let overflowed = "TcpExt: TCPReqQFullDrop TCPReqQFullDoCookies\nTcpExt: 7 9\n";
        machine.write("/proc/net/netstat", overflowed);
        let starts = |guard| {
            let audit = machine.audit_beside(guard);
            let mends = audit.findings.iter().flat_map(|finding| &finding.mend);
            mends.filter(|mend| mend.command.starts_with("ctguard run")).count()
        };
        let interfaces = vec!["wan0".to_owned()];
        let running = Health { daemon_runs: true, interfaces, ..Health::default() };
        assert_eq!(starts(Ok(None)), 1, "of syn-backlog");
        assert_eq!(starts(Ok(Some(running))), 0);
    }

    #[test]
    fn a_guard_without_a_daemon_is_to_be_started_on_its_own_interfaces() {
        let interfaces = vec!["wan0".to_owned(), "lan0".to_owned()];
        let alone = Health { interfaces, ..Health::default() };
        let (command, why) = advised(&Ok(Some(alone.clone())));
        assert_eq!((command.as_str(), why.as_str()), ("ctguard run -i wan0 -i lan0", "it fills"));
        assert_eq!(judge(&alone)[0].mend[0].command, "ctguard run -i wan0 -i lan0");
    }

    #[test]
    fn where_nobody_knows_whether_a_guard_runs_its_status_is_named() {
        let place = "    # the interface where it arrives";
        assert_eq!(advised(&Ok(None)).0, format!("{START}{place}"));
        let (command, _) = advised(&Err(Unread::new("the guard's maps", "not permitted")));
        assert_eq!(command, format!("{START}{place}; unless ctguard status shows a guard"));
    }

    #[test]
    fn rules_that_exempt_packets_matter_to_a_guard_that_asks_conntrack() {
        let why = |health: Health| {
            let why = format!("…. {START_WITH_CACHE} arrive at a guarded interface");
            let mut notrack = [Finding::note("notrack", "rules").because(why)];
            advise(&Ok(Some(health)), &mut notrack);
            notrack[0].why.clone()
        };
        let asks = Health { daemon_runs: true, asks_conntrack: true, ..Health::default() };
        assert!(why(asks.clone()).contains("Restart the one here with --new-flow-detection"));
        let cache = Health { asks_conntrack: false, ..asks };
        let told = why(cache);
        assert!(told.contains("knows them if they arrive") && !told.contains("Start"), "{told}");
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
            refused: vec![("source", 7), ("grant", 3), ("fallback", 0)],
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
