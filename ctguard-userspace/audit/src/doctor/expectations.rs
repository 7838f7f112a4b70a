//! Whether helpers have room for the flows that they announce.
//!
//! Each network namespace may have as many as the maximum, which is set in the first alone
//! (`nf_conntrack_standalone_init_sysctl`, `net/netfilter/nf_conntrack_standalone.c`).

use std::collections::BTreeMap;

use super::finding::{Finding, Findings};
use crate::host::{EXPECT_MAX as MAX, Host, LogCounts, Statistics, sysctl_path};

/// Shares of the maximum.
const TAKEN: [f64; 2] = [0.75, 1.0];
/// The list of expectations; the table of entries is never read so.
const LIST: &str = "/proc/net/nf_conntrack_expect";
const CREATED: &str = "expect_create";

const WHY: &str = "helpers (FTP, TFTP, SIP, H.323, PPTP) announce flows to come; without room the \
    packet that announces one is dropped, and nobody else's. This is not the table of connections: \
    a larger nf_conntrack_max does not help";

/// B7, of the list in `docs/doctor.md`.
pub(super) fn check(
    host: &Host,
    log: Option<&LogCounts>,
    counters: &Statistics,
    findings: &mut Findings,
) {
    let max = findings.read("expectations", host.number(&sysctl_path(MAX))).flatten();
    let listed = findings.read("expectations", host.text(LIST)).flatten().unwrap_or_default();
    let count = u64::try_from(listed.lines().count()).unwrap_or(u64::MAX);
    let taken = max.and_then(|max| taken(&listed, count, max));
    let is_full = taken.as_ref().is_some_and(|finding| finding.check == FULL);
    findings.add(taken);
    if let Some(lines) = log.map(|log| log.expectations_full).filter(|lines| *lines > 0) {
        // A namespace that never had one has no full table of them. The line does not say whose.
        let may_be_own = count > 0 || !counters.has(CREATED) || counters.get(CREATED) > 0;
        findings.add((!is_full).then(|| logged(lines, may_be_own, max)));
    }
}

const FULL: &str = "expectations-full";

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn taken(listed: &str, count: u64, max: u64) -> Option<Finding> {
    let share = count as f64 / max.max(1) as f64;
    let by = most_frequent_helper(listed);
    let by = by.map_or_else(String::new, |helper| format!(", most of them by {helper}"));
    let what = format!("{count} of {max} expectations are taken{by}");
    let check = if share >= TAKEN[1] { FULL } else { "expectations" };
    let finding = Finding::graded(check, share, TAKEN, what)?
        .read(LIST, format!("{count} lines"))
        .read(sysctl_path(MAX), max)
        .because(WHY);
    Some(mended(finding, Some(max)))
}

fn logged(lines: u64, may_be_own: bool, max: Option<u64>) -> Finding {
    let finding = if may_be_own {
        Finding::fault(
            FULL,
            format!("the kernel logged {lines} times in 24 hours: expectation table full"),
        )
        .because(WHY)
    } else {
        Finding::warning(
            "expectations-full-elsewhere",
            format!(
                "the kernel logged {lines} times in 24 hours: expectation table full, of another \
                 network namespace"
            ),
        )
        .because(
            "helpers of a container, or of a virtual router, had no room to announce flows; none \
             in this network namespace has announced any. The maximum is one for all of them",
        )
    };
    mended(finding.read(LogCounts::PLACE, format!("{lines} lines in 24 hours")), max)
}

fn mended(finding: Finding, max: Option<u64>) -> Finding {
    let more = max.unwrap_or(1024).max(256).saturating_mul(4);
    finding
        .by_hand(format!("sysctl -w {MAX}={more}"))
        .by_hand("nft list ct helpers    # give a helper only to the flows that need it")
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
    use crate::doctor::{Severity, testing::Machine};

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
        assert_eq!(what, "4 of 4 expectations are taken, most of them by tftp");
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
