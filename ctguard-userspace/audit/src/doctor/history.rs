//! Whether the table has overflowed before: the kernel's log and counters.

use super::finding::{Finding, Findings, Severity};
use crate::host::{
    Host, LogCounts, MAX, OtherTables, STATISTICS, Statistics, TableNumbers, Unread, sysctl_path,
};
use ctguard_kernel::{
    modules::{Part, Presence},
    privileges::remedy,
};

/// Races alone cause fewer failed insertions since boot.
const RACES: u64 = 1000;
/// Below this, no insertion fails for lack of room.
const HALF: f64 = 0.5;
const NAMED: usize = 3;

/// Counters at the start and the end of an audit.
#[derive(Clone, Debug, Default)]
pub(super) struct Meanwhile {
    pub(super) before: Statistics,
    pub(super) after: Statistics,
}

impl Meanwhile {
    pub(super) fn total(&self, column: &str) -> u64 {
        self.after.get(column)
    }

    pub(super) fn now(&self, column: &str) -> u64 {
        self.after.get(column).saturating_sub(self.before.get(column))
    }

    fn read(&self, finding: Finding, column: &str) -> Finding {
        let (total, now) = (self.total(column), self.now(column));
        finding.read(self.after.place(), format!("{column} {total}, {now} during the audit"))
    }
}

pub(super) fn log(host: &Host, findings: &mut Findings) -> Option<LogCounts> {
    findings.read("kernel-log", LogCounts::read(host)).flatten()
}

pub(super) fn check_log(
    host: &Host,
    log: &LogCounts,
    Meanwhile { after, .. }: &Meanwhile,
    others: &OtherTables,
    findings: &mut Findings,
) {
    // An earlier namespace may have had the number of this one; no line is about this one's table
    // where the kernel counted no drops.
    let may_have_dropped = !after.has("drop") || after.losses().in_all().dropped > 0;
    let own = host.network_namespace("self").map(|own| (own, may_have_dropped));
    findings.add(table_full(log, own, others));
    let vmalloc = Finding::note("vmalloc", "the hash does not lie in contiguous memory")
        .read(LogCounts::PLACE, "nf_conntrack: falling back to vmalloc")
        .because("a large hash needs vmalloc, which is slightly slower; nothing needs to be done");
    findings.add(vmalloc.when(log.vmalloc > 0));
    findings.add(neighbours_full(host, log));
}

fn neighbours_full(host: &Host, log: &LogCounts) -> Option<Finding> {
    const MOST: &str = "net.ipv4.neigh.default.gc_thresh3";
    let most = host.number(&sysctl_path(MOST)).ok().flatten().unwrap_or(1024);
    let wanted = most.saturating_mul(4);
    let mend = |family: &str| {
        let set =
            |number: u8, value| format!("net.{family}.neigh.default.gc_thresh{number}={value}");
        let all = [set(3, wanted), set(2, wanted / 2), set(1, wanted / 8)];
        format!("sysctl -w {}", all.join(" "))
    };
    Finding::warning(
        "neighbours-full",
        "the kernel logged \"neighbor table overflow\" in the last 24 hours",
    )
    .read(LogCounts::PLACE, format!("{} lines", log.neighbours_full))
    .read(sysctl_path(MOST), most)
    .because(
        "the table of neighbours (ARP and neighbour discovery) was full: packets to hosts on the same \
         link were dropped. This is not the connection table. Put the settings into sysctl.d if they \
         help",
    )
    .by_hand(mend("ipv4"))
    .by_hand(mend("ipv6"))
    .when(log.neighbours_full > 0)
}

/// `own` is this namespace's number, and whether a line may be about its table.
fn table_full(log: &LogCounts, own: Option<(u64, bool)>, others: &OtherTables) -> Option<Finding> {
    let many = log.namespaces.len();
    // Older kernels do not say whose table it is.
    let is_own = |(own, dropped): (u64, bool)| dropped && log.namespaces.contains(&own);
    let elsewhere = many > 0 && own.is_some_and(|own| !is_own(own));
    let logged = |what: &str| format!("the kernel logged \"{what}\" in the last 24 hours");
    let (severity, what) = if elsewhere {
        let whose = format!(", for {many} other network namespaces");
        (Severity::Warning, logged("table full") + &whose)
    } else {
        (Severity::Fault, logged("table full, dropping packet"))
    };
    let name = |number: &u64| {
        let known = others.tables.iter().find(|other| other.number == *number);
        let name = known.map_or_else(String::new, |other| format!(" ({})", other.name));
        format!("net:[{number}]{name}")
    };
    let named = log.namespaces.iter().map(name).take(NAMED).collect::<Vec<_>>().join(", ");
    let of = if named.is_empty() { String::new() } else { format!(", for {named}") };
    let rest = if many > NAMED { " and others" } else { "" };
    // Suppressed lines are of all of the network's complaints together.
    let only = log.neighbours_full == 0;
    let suppressed = if only { format!(", {} suppressed", log.suppressed) } else { String::new() };
    let lines = format!("{} lines{suppressed}{of}{rest}", log.table_full);
    Finding::of("table-full-logged", severity, what)
        .read(LogCounts::PLACE, lines)
        .because(
            "every line is a dropped new flow; the kernel limits the rate of these lines, so there \
             were more",
        )
        .tune("ctguard tune --apply")
        .when(log.table_full > 0)
}

/// To ask would load the module, which then costs time and memory for each new flow.
pub(super) const NO_CTNETLINK: &str = "not asked, as that would load the module nf_conntrack_netlink; to have it asked: modprobe \
     nf_conntrack_netlink";

pub(super) fn statistics(host: &Host, findings: &mut Findings) -> Statistics {
    let is_askable = || Part::Ctnetlink.presence() == Presence::Askable;
    if host.is_this() && !host.is_there(STATISTICS) && !is_askable() {
        findings.skip("counters", Unread::new(STATISTICS, NO_CTNETLINK));
        return Statistics::default();
    }
    let read = findings.read("counters", Statistics::read(host));
    if matches!(read, Some(None)) {
        let remedy = remedy("CAP_NET_ADMIN");
        let reason = format!("absent, and no counters over ctnetlink; {remedy}");
        findings.skip("counters", Unread::new(STATISTICS, &reason));
    }
    read.flatten().unwrap_or_default()
}

pub(super) fn check_counters(table: TableNumbers, counted: &Meanwhile, findings: &mut Findings) {
    findings.add(dropped(counted));
    findings.add(early_drop(counted));
    findings.add(insert_failed(table, counted));
    findings.add(chains(counted));
}

fn dropped(counted: &Meanwhile) -> Option<Finding> {
    let losses = counted.after.losses();
    let (total, now) = (losses.in_all().dropped, losses.since(counted.before.losses()).dropped);
    let finding = if now > 0 {
        let what = format!("the kernel dropped {now} new flows during this audit");
        Finding::fault("dropped", format!("the table is full: {what}"))
    } else {
        let what = format!("the kernel has dropped {total} new flows because the table was full");
        Finding::warning("dropped", format!("{what}, none during this audit"))
    };
    let finding = finding.because("clients had to retry, or gave up").tune("ctguard tune --apply");
    counted.read(finding, "drop").when(total > 0)
}

fn early_drop(counted: &Meanwhile) -> Option<Finding> {
    let (total, now) = (counted.total("early_drop"), counted.now("early_drop"));
    let severity = if now > 0 { Severity::Warning } else { Severity::Note };
    let what = format!("the kernel evicted {total} entries to make room, {now} during this audit");
    let finding = Finding::of("early-drop", severity, what)
        .because("the table was full, and the kernel found entries that were not ASSURED")
        .tune("ctguard tune --apply");
    counted.read(finding, "early_drop").when(total > 0)
}

fn insert_failed(table: TableNumbers, counted: &Meanwhile) -> Option<Finding> {
    let (total, now) = (counted.total("insert_failed"), counted.now("insert_failed"));
    let roomy = table.fill_ratio().is_none_or(|fill| fill < HALF);
    let what = format!(
        "{total} new flows could not be inserted, {now} during this audit, although the table has room"
    );
    let why = format!(
        "two packets of one flow raced (a resolver behind NAT that asks for A and AAAA over one \
         socket), or NAT had no free port. A larger {MAX} does not help"
    );
    let finding = Finding::warning("insert-failed", what)
        .because(why)
        .by_hand(
            "echo 'options single-request-reopen' >> /etc/resolv.conf    # on clients with glibc",
        )
        .by_hand("nft … masquerade fully-random");
    let finding = counted.read(counted.read(finding, "insert_failed"), "clashres");
    finding.when(roomy && (now > 0 || total >= RACES))
}

fn chains(counted: &Meanwhile) -> Option<Finding> {
    let now = counted.now("chainlength");
    let what =
        format!("{now} new flows were dropped during this audit because a hash chain was too long");
    let finding = Finding::warning("chains", what)
        .because("the hash has too few buckets, or an attacker aims at one of them")
        .tune("ctguard tune --apply");
    counted.read(finding, "chainlength").when(now > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{finding::Severity, testing::Machine};

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
    fn a_full_table_of_neighbours_is_no_full_connection_table() {
        let machine = Machine::healthy("history-neighbours");
        let overflow = "4,1,1000,-;neighbour: arp_cache: neighbor table overflow!\n\
            4,2,1001,-;net_ratelimit: 99999 callbacks suppressed\n";
        machine.write("/proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n");
        machine.write("/dev/kmsg", overflow);
        assert_eq!(machine.found(), [("neighbours-full", Severity::Warning)]);
        let finding = &machine.audit().findings[0];
        assert!(finding.mend[0].command.contains("gc_thresh3=4096"), "{finding:?}");
        let both = format!("{overflow}4,3,1002,-;nf_conntrack: table full, dropping packet\n");
        machine.write("/dev/kmsg", &both);
        let audit = machine.audit();
        assert_eq!(audit.notes("table-full-logged")[0].read[0].value, "1 lines");
    }

    /// Linux 4.8 to 5.9 counted a lost race in both columns, and had no column for won ones.
    #[test]
    fn races_of_older_kernels_are_not_told_as_a_full_table() {
        let machine = Machine::healthy("history-races");
        machine.write("/proc/sys/kernel/osrelease", "5.4.0-150-generic\n");
        machine.write(STATISTICS, "entries insert_failed drop\n00000400 00000f3c 00000f3c\n");
        assert_eq!(machine.found(), [("insert-failed", Severity::Warning)]);
        machine.write("/proc/sys/kernel/osrelease", "4.4.0-1\n");
        let both = [("dropped", Severity::Warning), ("insert-failed", Severity::Warning)];
        assert_eq!(machine.found(), both);
    }

    #[test]
    fn the_log_is_a_fault_that_names_the_namespace() {
        let machine = Machine::healthy("history-log");
        let line = "4,1,1000,-;nf_conntrack: table full in netns 17, dropping packet\n";
        machine.write("/dev/kmsg", line);
        assert_eq!(machine.found(), [("table-full-logged", Severity::Fault)]);
        assert!(machine.audit().findings[0].read[0].value.ends_with("for net:[17]"));
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
