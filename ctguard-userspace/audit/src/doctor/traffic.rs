//! Packets that are lost or invalid for other reasons than a full table.

use super::{
    finding::{Finding, Findings},
    history::Meanwhile,
    text::share,
};
use crate::host::{BACKLOG_FULL, Host, SOFTNET, SQUEEZED, sysctl_path};

/// Fewer packets make no meaningful share.
const ENOUGH: u64 = 1000;
/// Stray packets of closed connections are a smaller share.
const INVALID: f64 = 0.05;
/// Fragments are put together before conntrack: the counter, where it is, and the memory for them.
const REASSEMBLY: [(&str, &str, &str, &str); 2] = [
    ("IPv4", "IpReasmFails", "/proc/net/snmp", "net.ipv4.ipfrag_high_thresh"),
    ("IPv6", "Ip6ReasmFails", "/proc/net/snmp6", "net.netfilter.nf_conntrack_frag6_high_thresh"),
];
/// Fewer since boot are normal.
const FAILURES: u64 = 100;

pub(super) fn check(
    host: &Host,
    conntrack: &Meanwhile,
    stack: &Meanwhile,
    findings: &mut Findings,
) {
    findings.add(backlog(stack));
    findings.add(squeezed(stack));
    findings.add(invalid(conntrack, stack));
    for (family, counter, place, key) in REASSEMBLY {
        let threshold = findings.number("fragments", host, key);
        let (total, now) = (stack.total(counter), stack.now(counter));
        let failed = format!("{total} {family} packets could not be reassembled from fragments");
        let failed = Finding::note("fragments", format!("{failed}, {now} during this audit"))
            .read(place, format!("{counter} {total}"))
            .read(sysctl_path(key), threshold.unwrap_or_default())
            .because(
                "most often a fragment was lost on the way; when waiting fragments use more memory \
                 than the threshold, new ones are dropped",
            );
        findings.add(failed.when(threshold.is_some() && (now > 0 || total >= FAILURES)));
    }
}

fn backlog(stack: &Meanwhile) -> Option<Finding> {
    let lost = stack.now(BACKLOG_FULL);
    let what =
        format!("{lost} packets were dropped because a CPU's backlog was full, during this audit");
    Finding::warning("backlog", what)
        .read(SOFTNET, "second column")
        .because("a CPU is overloaded; this has nothing to do with the table")
        .by_hand("sysctl -w net.core.netdev_max_backlog=4096")
        .when(lost > 0)
}

fn squeezed(stack: &Meanwhile) -> Option<Finding> {
    let times = stack.now(SQUEEZED);
    let what = format!("CPUs ran out of their receive budget {times} times during this audit");
    Finding::note("squeezed", what)
        .read(SOFTNET, "third column")
        .because(
            "more packets were waiting than net.core.netdev_budget allows at once: a CPU is busy, \
             often the one that takes a whole flood; nothing is lost yet",
        )
        .when(times > 0)
}

/// Among the packets of the audit if they are enough, else among all since boot.
fn invalid(conntrack: &Meanwhile, stack: &Meanwhile) -> Option<Finding> {
    let packets = |of: &dyn Fn(&str) -> u64| of("IpInReceives").saturating_add(of("Ip6InReceives"));
    let arrived = packets(&|name| stack.now(name));
    let total = conntrack.total("invalid");
    let (invalid, packets, when) = if arrived >= ENOUGH {
        (conntrack.now("invalid"), arrived, "during this audit")
    } else {
        (total, packets(&|name| stack.total(name)), "since boot")
    };
    let what = format!("conntrack found {invalid} of {packets} packets invalid {when}");
    Finding::note("invalid", what)
        .read(conntrack.after.place(), format!("invalid {total}"))
        .because(
            "they fit no connection that it knows: scans, asymmetric routing, or connections that are \
             older than the table. `nf_conntrack_tcp_be_liberal` helps with asymmetric routing only",
        )
        .by_hand(
            "sysctl -w net.netfilter.nf_conntrack_log_invalid=6    # logs TCP; set it back to 0 after \
             a minute",
        )
        .when(packets >= ENOUGH && share(invalid, packets) >= INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::testing::Machine, host::Statistics};

    fn counters(numbers: &[(&str, u64)]) -> Statistics {
        let mut counters = Statistics::default();
        counters.sums.extend(numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)));
        counters
    }

    fn found(before: &[(&str, u64)], after: &[(&str, u64)]) -> Vec<&'static str> {
        let machine = Machine::healthy(&format!("traffic-{after:p}"));
        for (.., key) in REASSEMBLY {
            machine.write(&sysctl_path(key), "4194304\n");
        }
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
        for (_, counter, ..) in REASSEMBLY {
            let failed = |number| [(counter, number)];
            assert!(found(&failed(9), &failed(9)).is_empty());
            assert_eq!(found(&failed(9), &failed(10)), ["fragments"]);
            assert_eq!(found(&failed(100), &failed(100)), ["fragments"]);
        }
    }
}
