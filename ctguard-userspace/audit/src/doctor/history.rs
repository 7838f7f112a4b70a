//! Whether it has happened: the kernel's log and counters.

use super::finding::{Finding, Findings};
use crate::host::{
    Host, LogCounts, MAX, OtherTables, STATISTICS, Statistics, TableNumbers, Unread,
};

/// Insertions that fail by races alone are fewer since the kernel was started.
const RACES: u64 = 1000;
/// A table that is less full loses no insertion for want of room.
const HALF: f64 = 0.5;
/// Network namespaces that are told by number.
const NAMED: usize = 3;

/// Counters at both ends of an audit.
#[derive(Clone, Debug, Default)]
pub(super) struct Meanwhile {
    pub(super) before: Statistics,
    pub(super) after: Statistics,
}

impl Meanwhile {
    pub(super) fn total(&self, column: &str) -> u64 {
        self.after.get(column)
    }

    /// Whether new flows of this namespace may have been dropped for a full table: not where the
    /// kernel counted none.
    fn may_have_dropped(&self) -> bool {
        !self.after.has("drop") || self.after.losses().in_all().dropped > 0
    }

    pub(super) fn now(&self, column: &str) -> u64 {
        self.after.get(column).saturating_sub(self.before.get(column))
    }
}

/// The kernel's lines about conntrack.
pub(super) fn log(host: &Host, findings: &mut Findings) -> Option<LogCounts> {
    findings.read("kernel-log", LogCounts::read(host)).flatten()
}

pub(super) fn check_log(
    host: &Host,
    log: &LogCounts,
    counted: &Meanwhile,
    others: &OtherTables,
    findings: &mut Findings,
) {
    // A namespace of the past may have had this one's number.
    let own = own_namespace(host).map(|own| (own, counted.may_have_dropped()));
    findings.add(table_full(log, own, others));
    findings.add((log.vmalloc > 0).then(|| {
        Finding::note("vmalloc", "the hash was too large for contiguous memory")
            .read(LogCounts::PLACE, "nf_conntrack: falling back to vmalloc")
            .because("it works as well, a trifle slower: nothing needs to be done")
    }));
}

/// `own` is this namespace's number, and whether a line may be about its table.
fn table_full(log: &LogCounts, own: Option<(u64, bool)>, others: &OtherTables) -> Option<Finding> {
    if log.table_full == 0 {
        return None;
    }
    let many = log.namespaces.len();
    // Older kernels do not say whose table it is.
    let is_own = |(own, dropped): (u64, bool)| dropped && log.namespaces.contains(&own);
    let elsewhere = many > 0 && own.is_some_and(|own| !is_own(own));
    let finding = if elsewhere {
        let what = format!(
            "the kernel logged in 24 hours: table full, in {many} other network namespaces"
        );
        Finding::warning("table-full-logged", what)
    } else {
        let what = "the kernel logged in 24 hours: table full, dropping packet";
        Finding::fault("table-full-logged", what)
    };
    let name = |number: &u64| {
        let known = others.tables.iter().find(|other| other.number == *number);
        let name = known.map_or_else(String::new, |other| format!(" ({})", other.name));
        format!("net:[{number}]{name}")
    };
    let named = log.namespaces.iter().map(name).take(NAMED).collect::<Vec<_>>().join(", ");
    let of = if named.is_empty() { String::new() } else { format!(", of {named}") };
    let rest = if many > NAMED { " and others" } else { "" };
    Some(
        finding
            .read(
                LogCounts::PLACE,
                format!("{} lines, and {} left out{of}{rest}", log.table_full, log.suppressed),
            )
            .because(
                "each line is a new flow of somebody's that died; lines are limited in rate, so \
                 there were more",
            )
            .tune("ctguard tune --apply"),
    )
}

/// The number of this network namespace.
fn own_namespace(host: &Host) -> Option<u64> {
    let link = std::fs::read_link(host.path("/proc/self/ns/net")).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

pub(super) fn statistics(host: &Host, findings: &mut Findings) -> Statistics {
    match findings.read("counters", Statistics::read(host)) {
        Some(Some(statistics)) => statistics,
        Some(None) => {
            let reason = "absent, and ctnetlink tells none; run as root, or with CAP_NET_ADMIN";
            findings.read::<()>("counters", Err(Unread::new(STATISTICS, reason)));
            Statistics::default()
        }
        None => Statistics::default(),
    }
}

pub(super) fn check_counters(table: TableNumbers, counted: &Meanwhile, findings: &mut Findings) {
    findings.add(dropped(counted));
    findings.add(early_drop(counted));
    findings.add(insert_failed(table, counted));
    findings.add(chains(counted));
}

fn shown(counted: &Meanwhile, column: &str) -> String {
    format!("{column} {}, {} of them during the audit", counted.total(column), counted.now(column))
}

fn dropped(counted: &Meanwhile) -> Option<Finding> {
    let losses = counted.after.losses();
    let (total, now) = (losses.in_all().dropped, losses.since(counted.before.losses()).dropped);
    let finding = match (total, now) {
        (0, _) => return None,
        (_, 0) => Finding::warning(
            "dropped",
            format!("the kernel has dropped {total} new flows for a full table, none just now"),
        ),
        _ => Finding::fault(
            "dropped",
            format!("the kernel is dropping new flows for a full table: {now} during this audit"),
        ),
    };
    Some(
        finding
            .read(counted.after.place(), shown(counted, "drop"))
            .because("who opened them had to try again, or gave up")
            .tune("ctguard tune --apply"),
    )
}

fn early_drop(counted: &Meanwhile) -> Option<Finding> {
    let (total, now) = (counted.total("early_drop"), counted.now("early_drop"));
    if total == 0 {
        return None;
    }
    let what =
        format!("the kernel threw away {total} entries to make room, {now} during this audit");
    let finding = if now > 0 {
        Finding::warning("early-drop", what)
    } else {
        Finding::note("early-drop", what)
    };
    Some(
        finding
            .read(counted.after.place(), shown(counted, "early_drop"))
            .because("the table was full, and a few buckets held flows that were not established")
            .tune("ctguard tune --apply"),
    )
}

fn insert_failed(table: TableNumbers, counted: &Meanwhile) -> Option<Finding> {
    let (total, now) = (counted.total("insert_failed"), counted.now("insert_failed"));
    let roomy = table.fill_ratio().is_none_or(|fill| fill < HALF);
    // A packet that the full table drops is none that could not be inserted.
    let many = now > 0 || total >= RACES;
    (roomy && many).then(|| {
        Finding::warning(
            "insert-failed",
            format!(
                "{total} new flows could not be inserted, {now} during this audit, with room \
                in the table"
            ),
        )
        .read(counted.after.place(), shown(counted, "insert_failed"))
        .read(counted.after.place(), shown(counted, "clashres"))
        .because(format!(
            "two packets of one flow raced (a resolver that asks for A and AAAA over one socket, \
             behind NAT), or NAT had no free port: the table's size is not the cause, and a larger \
             {MAX} does not help"
        ))
        .by_hand(
            "echo 'options single-request-reopen' >> /etc/resolv.conf    # on clients of \
            glibc",
        )
        .by_hand("nft … masquerade fully-random")
    })
}

fn chains(counted: &Meanwhile) -> Option<Finding> {
    let now = counted.now("chainlength");
    (now > 0).then(|| {
        Finding::warning(
            "chains",
            format!(
                "{now} new flows were refused during this audit because a bucket's chain was \
                too long"
            ),
        )
        .read(counted.after.place(), shown(counted, "chainlength"))
        .because("the hash has too few buckets for its entries, or somebody aims at one of them")
        .tune("ctguard tune --apply")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Severity, testing::Machine};

    const HEADER: &str = "entries clashres chainlength insert_failed drop early_drop\n";

    fn counted(before: &str, after: &str) -> Meanwhile {
        let read = |line: &str| {
            let machine = Machine::healthy(&format!("history-{}", line.replace(' ', "-")));
            machine.write(STATISTICS, &format!("{HEADER}{line}\n"));
            Statistics::read(machine.host()).unwrap().unwrap()
        };
        Meanwhile { before: read(before), after: read(after) }
    }

    fn found(before: &str, after: &str, count: u64) -> Vec<(&'static str, Severity)> {
        let table = TableNumbers { count, max: 1000, buckets: 1000 };
        let mut findings = Findings::default();
        check_counters(table, &counted(before, after), &mut findings);
        findings.found.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn drops_of_today_are_a_fault_and_those_of_the_past_a_warning() {
        assert_eq!(found("1 0 0 0 0 0", "1 0 0 0 0 0", 10), []);
        assert_eq!(found("2 0 0 0 5 0", "2 0 0 0 5 0", 10), [("dropped", Severity::Warning)]);
        assert_eq!(found("3 0 0 0 5 0", "3 0 0 0 6 0", 990), [("dropped", Severity::Fault)]);
    }

    /// Fails when somebody is told to raise the maximum for a race.
    #[test]
    fn failed_insertions_count_only_where_the_table_has_room() {
        assert_eq!(found("4 0 0 1 0 0", "4 0 0 2 0 0", 10), [("insert-failed", Severity::Warning)]);
        assert_eq!(found("5 0 0 1 0 0", "5 0 0 2 0 0", 900), []);
        let both = [("insert-failed", Severity::Warning)];
        assert_eq!(found("8 0 0 1 1 0", "8 0 0 2 2 0", 10), both, "counted as dropped as well");
        assert_eq!(found("6 0 0 1 0 0", "6 0 0 1 0 0", 10), []);
    }

    #[test]
    fn the_log_is_a_fault_that_names_the_namespace() {
        let machine = Machine::healthy("history-log");
        let line = "4,1,1000,-;nf_conntrack: table full in netns 17, dropping packet\n";
        machine.write("/dev/kmsg", line);
        assert_eq!(machine.found(), [("table-full-logged", Severity::Fault)]);
        assert!(machine.audit().findings[0].read[0].value.ends_with("of net:[17]"));
        machine.write("/proc/self/ns/x", "");
        std::os::unix::fs::symlink("net:[4]", machine.host().path("/proc/self/ns/net")).unwrap();
        assert_eq!(machine.found(), [("table-full-logged", Severity::Warning)], "of others");
        machine.write("/dev/kmsg", &line.replace("17", "4"));
        assert_eq!(machine.found(), [("table-full-logged", Severity::Warning)], "of one before");
        machine.write(STATISTICS, "entries clashres drop insert_failed\n1 0 3 1\n");
        let found = machine.found();
        assert!(found.contains(&("table-full-logged", Severity::Fault)), "its own: {found:?}");
    }
}
