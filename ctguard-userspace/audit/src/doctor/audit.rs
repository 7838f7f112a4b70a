//! The order of an audit.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    attach::{Asked, Examination},
    capacity, causes,
    census::Census,
    elsewhere, expectations,
    finding::{Finding, Findings, Severity, Skipped},
    flow_rules,
    guard::{self, Health},
    history::{self, Meanwhile},
    mends, neighbours, owners,
    pace::{self, Pace},
    peers, persistence,
    planned::Planned,
    presence, provider,
    role::Role,
    services,
    size::{BUCKET_BYTES, entries_bytes},
    timeouts, traffic, uses,
};
use crate::host::{EntrySize, Host, Memory, Statistics, TableNumbers, Unread, sysctl_path};
use ctguard_kernel::{
    conntrack::dump_some,
    modules::{Part, Presence},
    net::Ruleset,
};
use ctguard_units::real;

/// A dump stops at so many entries, or after so long; a sample is enough.
const MOST_ENTRIES: u64 = 200_000;
const LONGEST: Duration = Duration::from_millis(500);
/// `tcp_timeout_established` where it cannot be read (`net/netfilter/nf_conntrack_proto_tcp.c`).
const ESTABLISHED_SECONDS: u32 = 432_000;

#[derive(Debug, Serialize)]
pub struct Audit {
    /// None where conntrack is not loaded.
    pub table: Option<Summary>,
    /// The worst first, and of equal ones the likeliest cause.
    pub findings: Vec<Finding>,
    pub skipped: Vec<Skipped>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    #[serde(flatten)]
    pub numbers: TableNumbers,
    pub fill_ratio: Option<f64>,
    /// The memory of a full table.
    pub full_entries_bytes: u64,
    pub hash_bytes: u64,
    pub memory_bytes: Option<u64>,
    pub flood_flows_per_second: u32,
    /// How long such a flood needs to fill the rest; none without a maximum.
    pub flood_seconds_to_full: Option<f64>,
}

impl Audit {
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}

/// What is examined besides the machine itself.
pub struct Besides<'a> {
    pub interface: Option<Asked<'a>>,
    /// New flows a second of the flood that the summary speaks of.
    pub flood: u32,
    /// Reads the state of a guard at the end; none where none is loaded.
    pub guard: Box<dyn FnOnce() -> Result<Option<Health>, Unread> + 'a>,
}

pub fn audit(host: &Host, besides: Besides<'_>) -> Audit {
    let mut findings = Findings::default();
    let examination = besides.interface.map(|asked| Examination::begin(host, asked));
    let allowances = provider::read(host);
    let (rules, owners) = (uses::read(host), owners::owners(host));
    // Whose rules cannot be read counts as a gateway, whose timeouts are the more careful ones.
    let forwards = host.forwards().is_ok_and(|by| by.is_some());
    let careful = if forwards { Role::Gateway } else { Role::Server };
    let planned = Planned::of(host, Role::by_rules(host, &rules).unwrap_or(careful), &owners);
    let mut presence = Findings::default();
    let table = presence::check(host, &planned, &mut presence);
    if let Some(table) = table {
        in_use(host, table, (&rules, &planned), &mut findings);
    }
    findings.append(presence);
    let summary = table.map(|numbers| {
        let entry = EntrySize::read(host);
        let memory = findings.read("memory", Memory::read(host));
        capacity::check(host, numbers, &entry, memory, &planned, &mut findings);
        timeouts::check(host, planned.role, &mut findings);
        let left = numbers.max.checked_sub(1).map(|most| most.saturating_sub(numbers.count));
        Summary {
            numbers,
            fill_ratio: numbers.fill_ratio(),
            full_entries_bytes: entries_bytes(numbers.max, &entry),
            hash_bytes: numbers.buckets.saturating_mul(BUCKET_BYTES),
            memory_bytes: memory.map(|memory| memory.total_bytes),
            flood_flows_per_second: besides.flood,
            flood_seconds_to_full: left.map(|left| real(left) / f64::from(besides.flood.max(1))),
        }
    });
    if summary.is_none() {
        unused(host, &mut findings);
    }
    provider::check(allowances, table, &mut findings);
    persistence::check(host, table, &owners, &planned, &mut findings);
    uses::check(host, rules, &mut findings);
    owners::check(host, &owners, &mut findings);
    let guard = (besides.guard)();
    let health = guard.as_ref().ok().and_then(Option::as_ref);
    if health.is_some() || examination.is_some() {
        let allowed = health.map(|health| health.allowed.as_slice()).unwrap_or_default();
        peers::check(host, allowed, &mut findings);
    }
    if let Some(examination) = examination {
        examination.finish(host, health, &mut findings);
    }
    guard::advise(&guard, &mut findings.found);
    guard::check(host, guard, &mut findings);

    let Findings { mut found, skipped } = findings;
    mends::check(host, table, &owners, &mut found);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Audit { table: summary, findings: found, skipped }
}

/// Conntrack is not loaded, but has a log, and services need none.
fn unused(host: &Host, findings: &mut Findings) {
    if let Some(log) = history::log(host, findings) {
        let (none, others) = (Meanwhile::default(), elsewhere::read(host, findings));
        history::check_log(host, &log, &none, &others, findings);
    }
    let before = stack_counters(host, findings);
    services::check(host, &Meanwhile { after: before.clone(), before }, findings);
}

/// What happens in the table now, and what has happened.
fn in_use(
    host: &Host,
    table: TableNumbers,
    (rules, planned): (&Result<Ruleset, Unread>, &Planned),
    findings: &mut Findings,
) {
    let mut pace = Pace::start(host);
    let mut conntrack =
        Meanwhile { before: history::statistics(host, findings), ..Meanwhile::default() };
    let mut stack = Meanwhile { before: stack_counters(host, findings), ..Meanwhile::default() };
    if let Some(census) = findings.read("entries", census(host, rules)) {
        let neighbours = neighbours::read(host, findings);
        findings.add(causes::judge(&census, table, &neighbours, planned));
    }
    let others = elsewhere::read(host, findings);
    pace.keep(host);
    // A failure was reported the first time.
    conntrack.after = history::statistics(host, &mut Findings::default());
    stack.after = stack_counters(host, &mut Findings::default());
    history::check_counters(table, &conntrack, findings);
    findings.add(pace::judge(&pace.readings, table));
    let log = history::log(host, findings);
    if let Some(log) = &log {
        history::check_log(host, log, &conntrack, &others, findings);
    }
    expectations::check(host, log.as_ref(), &conntrack.after, planned, findings);
    findings.add(elsewhere::judge(&others, planned));
    traffic::check(host, &conntrack, &stack, findings);
    services::check(host, &stack, findings);
}

fn stack_counters(host: &Host, findings: &mut Findings) -> Statistics {
    findings.read("network-counters", Statistics::of_stack(host)).unwrap_or_default()
}

fn census(host: &Host, rules: &Result<Ruleset, Unread>) -> Result<Census, Unread> {
    if !host.is_this() {
        return Err(Unread::new(causes::DUMP, "a copy of a machine has no table to list"));
    }
    if Part::Ctnetlink.presence() != Presence::Askable {
        return Err(Unread::new(causes::DUMP, history::NO_CTNETLINK));
    }
    let established =
        host.number(&sysctl_path("net.netfilter.nf_conntrack_tcp_timeout_established"))?;
    let established = established.and_then(|seconds| u32::try_from(seconds).ok());
    let policies = rules.as_ref().map(flow_rules::established);
    let mut timeouts = policies.unwrap_or_default();
    timeouts.push(established.unwrap_or(ESTABLISHED_SECONDS));
    let mut census = Census::new(timeouts);
    census.close_wait = host.number(&sysctl_path(causes::CLOSE_WAIT)).ok().flatten();
    let began = Instant::now();
    let dumped = dump_some(|entry| {
        census.note(entry);
        let looks_up = census.entries.is_multiple_of(1024);
        if census.entries >= MOST_ENTRIES || looks_up && began.elapsed() >= LONGEST {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    dumped.map_err(|error| Unread::new(causes::DUMP, &error)).map(|_| census)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Machine;

    /// Fails when a check finds something on a machine that was set up as `docs/doctor.md` says.
    #[test]
    fn nothing_is_found_on_a_machine_that_is_set_up_rightly() {
        let machine = Machine::healthy("doctor-healthy");
        let audit = machine.audit();
        assert!(audit.is_clean(), "{:?}", audit.findings);
        let skipped: Vec<_> = audit.skipped.iter().map(|skipped| skipped.check).collect();
        let alone = ["entries", "namespaces", "provider-limit", "rules"];
        assert_eq!(skipped, alone, "of a machine itself alone");
    }

    #[test]
    fn a_machine_that_tracks_nothing_has_services_all_the_same() {
        let machine = Machine::healthy("doctor-untracked");
        machine.remove("/proc/sys/net/netfilter/nf_conntrack_max");
        machine.write("/proc/sys/net/ipv4/tcp_syncookies", "0\n");
        assert_eq!(machine.checks(), ["syn-cookies"]);
    }

    #[test]
    fn the_worst_is_told_first() {
        let machine = Machine::healthy("doctor-order");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_count", "200000\n");
        machine.write("/dev/kmsg", "4,1,1000,-;nf_conntrack: table full, dropping packet\n");
        let severities: Vec<_> = machine.audit().findings.iter().map(|f| f.severity).collect();
        assert!(severities.is_sorted_by(|one, next| one >= next), "{severities:?}");
        assert_eq!(machine.audit().findings[0].check, "table-full-logged");
    }

    #[test]
    fn a_flood_of_a_hundred_thousand_a_second_fills_an_empty_table_in_seconds() {
        let table = Machine::healthy("doctor-summary").audit().table.unwrap();
        let seconds = table.flood_seconds_to_full.unwrap();
        assert!((2.0..3.0).contains(&seconds), "{seconds}");
    }
}
