//! Whether helpers have room for the connections that they expect.
//!
//! Every network namespace has its own count; the maximum is set in the first one only
//! (`nf_conntrack_standalone_init_sysctl`, `net/netfilter/nf_conntrack_standalone.c`).

use std::collections::BTreeMap;

use super::{
    finding::{Finding, Findings},
    planned::Planned,
    text::share,
};
use crate::host::{EXPECT_MAX as MAX, Host, LogCounts, Statistics, sysctl_path};

/// Shares of the maximum.
const TAKEN: [f64; 2] = [0.75, 1.0];
/// The list of expectations, which is short; the table itself is never read from /proc.
const LIST: &str = "/proc/net/nf_conntrack_expect";
const CREATED: &str = "expect_create";
const FULL: &str = "expectations-full";
/// Room for so many times more.
const TIMES: u64 = 4;

const WHY: &str = "helpers (FTP, TFTP, SIP, H.323, PPTP) expect the connections that a session will \
    open; when their list is full, the packet that announces one is dropped. This is not the \
    connection table: a larger nf_conntrack_max does not help";

/// The maximum that leaves room, where they run out now or did in the last 24 hours.
pub(crate) fn wanted(host: &Host, max: u64, buckets: u64) -> Option<u64> {
    let listed = host.text(LIST).ok().flatten().unwrap_or_default();
    let count = u64::try_from(listed.lines().count()).unwrap_or(u64::MAX);
    if share(count, max) >= TAKEN[0] {
        return Some(max.max(256).saturating_mul(TIMES));
    }
    let log = LogCounts::read(host).ok().flatten().unwrap_or_default();
    // What is old may be mended already: four times the kernel's default suffices.
    let ample = by_default(buckets).saturating_mul(TIMES);
    (log.expectations_full > 0 && max < ample).then_some(ample)
}

/// The kernel's default for a hash of so many buckets (`nf_conntrack_expect_init`).
const fn by_default(buckets: u64) -> u64 {
    let hash = buckets / 256;
    4 * if hash == 0 { 1 } else { hash }
}

pub(super) fn check(
    host: &Host,
    log: Option<&LogCounts>,
    counters: &Statistics,
    planned: &Planned,
    findings: &mut Findings,
) {
    let max = findings.number("expectations", host, MAX);
    let listed = findings.text("expectations", host, LIST);
    let count = u64::try_from(listed.lines().count()).unwrap_or(u64::MAX);
    let taken = max.and_then(|max| taken(&listed, count, max, planned));
    let is_full = taken.as_ref().is_some_and(|finding| finding.check == FULL);
    findings.add(taken);
    if let Some(lines) = log.map(|log| log.expectations_full).filter(|lines| *lines > 0) {
        // The line does not say which namespace it is about; not one that never had an expectation.
        let may_be_own = count > 0 || !counters.has(CREATED) || counters.get(CREATED) > 0;
        findings.add((!is_full).then(|| logged(lines, may_be_own, planned)));
    }
}

fn taken(listed: &str, count: u64, max: u64, planned: &Planned) -> Option<Finding> {
    let share = share(count, max);
    let by = most_frequent_helper(listed);
    let by = by.map_or_else(String::new, |helper| format!(", most of them by {helper}"));
    let what = format!("{count} of {max} expectations are in use{by}");
    let check = if share >= TAKEN[1] { FULL } else { "expectations" };
    let finding = Finding::graded(check, share, TAKEN, what)?
        .read(LIST, format!("{count} lines"))
        .read(sysctl_path(MAX), max)
        .because(WHY);
    Some(mended(finding, planned))
}

fn logged(lines: u64, may_be_own: bool, planned: &Planned) -> Finding {
    let what = format!("the kernel logged \"expectation table full\" {lines} times in 24 hours");
    let finding = if may_be_own {
        Finding::fault(FULL, what).because(WHY)
    } else {
        let what = format!("{what}, for another network namespace");
        Finding::warning("expectations-full-elsewhere", what).because(
            "helpers of a container or a virtual router had no room; none in this network namespace \
             ever expected a connection. The maximum applies to every namespace",
        )
    };
    mended(finding.read(LogCounts::PLACE, format!("{lines} lines in 24 hours")), planned)
}

fn mended(finding: Finding, planned: &Planned) -> Finding {
    let finding = match planned.set(MAX) {
        Some(command) => finding.tune("ctguard tune --apply").by_hand(command),
        None => finding,
    };
    finding.by_hand("nft list ct helpers    # assign helpers only to flows that need them")
}

/// A line ends with the helper's name (`exp_seq_show`, `net/netfilter/nf_conntrack_expect.c`).
fn most_frequent_helper(listed: &str) -> Option<&str> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for helper in listed.lines().filter_map(|line| line.split_whitespace().next_back()) {
        if !helper.contains('=') {
            *counts.entry(helper).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(helper, _)| helper)
}

#[cfg(test)]
mod tests {
    use crate::doctor::{finding::Severity, testing::Machine};

    const LINE: &str =
        "299 l3proto = 2 proto=17 src=10.0.0.1 dst=10.0.0.2 sport=0 dport=4000 tftp\n";
    const LOGGED: &str = "4,1,1000,-;nf_conntrack: expectation table full\n";

    fn with_four_at_most(test: &str, taken: usize) -> Machine {
        let machine = Machine::healthy(&format!("expectations-{test}"));
        machine.write("/proc/sys/net/netfilter/nf_conntrack_expect_max", "4\n");
        machine.write(super::LIST, &LINE.repeat(taken));
        machine
    }

    #[test]
    fn expectations_that_run_out_are_not_taken_for_the_table() {
        assert!(with_four_at_most("few", 2).found().is_empty());
        let machine = with_four_at_most("many", 3);
        assert_eq!(machine.found(), [("expectations", Severity::Warning)]);
        let machine = with_four_at_most("all", 4);
        machine.write("/dev/kmsg", LOGGED);
        assert_eq!(machine.found(), [("expectations-full", Severity::Fault)], "once");
        let what = &machine.audit().findings[0].what;
        assert_eq!(what, "4 of 4 expectations are in use, most of them by tftp");
    }

    /// Fails when a container's full table is told as this namespace's.
    #[test]
    fn a_line_of_the_log_is_anothers_where_no_expectation_was_ever_made() {
        let machine = with_four_at_most("logged", 0);
        machine.write("/dev/kmsg", LOGGED);
        assert_eq!(machine.found(), [("expectations-full", Severity::Fault)], "no such counter");
        let counters = |created| format!("entries expect_create\n00000001 {created}\n");
        machine.write("/proc/net/stat/nf_conntrack", &counters("00000000"));
        assert_eq!(machine.found(), [("expectations-full-elsewhere", Severity::Warning)]);
        machine.write("/proc/net/stat/nf_conntrack", &counters("00000003"));
        assert_eq!(machine.found(), [("expectations-full", Severity::Fault)]);
    }
}
