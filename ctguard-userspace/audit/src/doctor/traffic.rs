//! Packets that are lost, or odd, for other reasons than a full table.

use super::{
    finding::{Finding, Findings},
    history::Meanwhile,
};
use crate::host::{BACKLOG_FULL, Host, SOFTNET, SQUEEZED, sysctl_path};

/// Packets that make a share.
const ENOUGH: u64 = 1000;
/// Of packets: more are invalid than strays of closed connections would be.
const INVALID: f64 = 0.05;
const REASSEMBLY_FAILED: &str = "Ip6ReasmFails";
/// Since the kernel was started: fewer are everyday losses.
const FAILURES: u64 = 100;
const HIGH_THRESHOLD: &str = "net.netfilter.nf_conntrack_frag6_high_thresh";

/// C4, C5 and B10, of the list in `docs/doctor.md`.
pub(super) fn check(
    host: &Host,
    conntrack: &Meanwhile,
    stack: &Meanwhile,
    findings: &mut Findings,
) {
    findings.add(backlog(stack));
    findings.add(squeezed(stack));
    findings.add(invalid(conntrack, stack));
    if let Some(threshold) = findings.read("fragments", host.number(&sysctl_path(HIGH_THRESHOLD))) {
        findings.add(fragments(stack, threshold));
    }
}

fn backlog(stack: &Meanwhile) -> Option<Finding> {
    let lost = stack.now(BACKLOG_FULL);
    (lost > 0).then(|| {
        Finding::warning(
            "backlog",
            format!("{lost} packets found a CPU's backlog full during this audit"),
        )
        .read(SOFTNET, "second column")
        .because(
            "a CPU cannot keep up: that is not a full table, and no setting of conntrack helps",
        )
        .by_hand("sysctl -w net.core.netdev_max_backlog=4096")
    })
}

fn squeezed(stack: &Meanwhile) -> Option<Finding> {
    let times = stack.now(SQUEEZED);
    (times > 0).then(|| {
        Finding::note(
            "squeezed",
            format!("CPUs left packets for later {times} times during this audit"),
        )
        .read(SOFTNET, "third column")
        .because(
            "there was more to receive than net.core.netdev_budget allows at once: a busy CPU, \
             often one that takes all of a flood; nothing is lost yet",
        )
    })
}

/// Of those that arrived during the audit, if they are enough, else of all.
#[expect(clippy::cast_precision_loss, reason = "a share needs no exact counts")]
fn invalid(conntrack: &Meanwhile, stack: &Meanwhile) -> Option<Finding> {
    let packets = |of: &dyn Fn(&str) -> u64| of("IpInReceives").saturating_add(of("Ip6InReceives"));
    let arrived = packets(&|name| stack.now(name));
    let (invalid, packets, when) = if arrived >= ENOUGH {
        (conntrack.now("invalid"), arrived, "during this audit")
    } else {
        (conntrack.total("invalid"), packets(&|name| stack.total(name)), "so far")
    };
    let share = invalid as f64 / packets.max(1) as f64;
    (packets >= ENOUGH && share >= INVALID).then(|| {
        let what = format!("{invalid} of {packets} packets {when} were invalid to conntrack");
        Finding::note("invalid", what)
            .read(conntrack.after.place(), format!("invalid {}", conntrack.total("invalid")))
            .because(
                "they belong to no connection that it knows, and have no entry: scans, traffic of \
                 which only one direction passes here, or connections older than the table. \
                 `nf_conntrack_tcp_be_liberal` helps with the second alone",
            )
            .by_hand(
                "sysctl -w net.netfilter.nf_conntrack_log_invalid=6    # for a minute, of TCP; 0 \
                 afterwards",
            )
    })
}

fn fragments(stack: &Meanwhile, threshold: Option<u64>) -> Option<Finding> {
    let (total, now) = (stack.total(REASSEMBLY_FAILED), stack.now(REASSEMBLY_FAILED));
    let threshold = threshold?;
    (now > 0 || total >= FAILURES).then(|| {
        Finding::note(
            "fragments",
            format!(
                "{total} IPv6 packets could not be put together of their fragments, {now} during \
                 this audit"
            ),
        )
        .read("/proc/net/snmp6", format!("{REASSEMBLY_FAILED} {total}"))
        .read(sysctl_path(HIGH_THRESHOLD), threshold)
        .because(
            "conntrack needs whole packets; fragments that wait take memory up to the threshold, \
             and beyond it new ones are dropped. Most often a fragment was lost on the way",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::testing::Machine, host::Statistics};

    fn counters(numbers: &[(&str, u64)]) -> Statistics {
        let mut counters = Statistics::default();
        counters.extend(numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)));
        counters
    }

    fn found(before: &[(&str, u64)], after: &[(&str, u64)]) -> Vec<&'static str> {
        let machine = Machine::healthy(&format!("traffic-{after:p}"));
        machine.write(&sysctl_path(HIGH_THRESHOLD), "4194304\n");
        // Names of both kinds of counters differ.
        let both = Meanwhile { before: counters(before), after: counters(after) };
        let mut findings = Findings::default();
        check(machine.host(), &both, &both, &mut findings);
        findings.found.iter().map(|finding| finding.check).collect()
    }

    #[test]
    fn packets_lost_in_the_backlog_are_no_full_table() {
        assert_eq!(found(&[(BACKLOG_FULL, 3)], &[(BACKLOG_FULL, 4)]), ["backlog"]);
        assert_eq!(found(&[(SQUEEZED, 3)], &[(SQUEEZED, 4)]), ["squeezed"]);
        let past = [(BACKLOG_FULL, 4), (SQUEEZED, 4)];
        assert!(found(&past, &past).is_empty());
    }

    /// Fails when the strays of every day are told.
    #[test]
    fn invalid_packets_are_told_by_their_share_of_now() {
        let counted = |packets, invalid| [("IpInReceives", packets), ("invalid", invalid)];
        assert!(found(&counted(0, 0), &counted(2000, 90)).is_empty());
        assert_eq!(found(&counted(0, 0), &counted(2000, 100)), ["invalid"]);
        let past = counted(10_000, 1000);
        assert!(found(&past, &counted(12_000, 1010)).is_empty(), "it is over");
        assert_eq!(found(&past, &past), ["invalid"], "nothing came meanwhile");
        assert!(found(&counted(10, 5), &counted(10, 5)).is_empty(), "of ten");
    }

    #[test]
    fn fragments_that_do_not_come_together_are_a_note() {
        let failed = |number| [(REASSEMBLY_FAILED, number)];
        assert!(found(&failed(9), &failed(9)).is_empty());
        assert_eq!(found(&failed(9), &failed(10)), ["fragments"]);
        assert_eq!(found(&failed(100), &failed(100)), ["fragments"]);
    }
}
