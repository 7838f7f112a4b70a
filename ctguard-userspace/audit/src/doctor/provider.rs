//! Limits of a virtual machine's provider, from the statistics of its network cards.
//!
//! Amazon's have them (`ena_hw_stats_strings` and its forerunner `ena_stats_eni_strings`,
//! `drivers/net/ethernet/amazon/ena/ena_ethtool.c`); only statistics of these names are read.

use super::finding::{Finding, Findings, Severity};
use crate::host::{Host, TableNumbers, Unread};
use ctguard_kernel::net::{Driver, Statistic, links};

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
const AVAILABLE: &str = "conntrack_allowance_available";

/// Packets that were dropped or delayed beyond a limit, what it limits, and what to do about it.
const EXCEEDED: [(&str, &str, &str); 5] = [
    (
        "conntrack_allowance_exceeded",
        "connections",
        "the provider also tracks connections, for its security groups, and drops those beyond the \
         limit of this instance type. nf_conntrack_max does not help; a larger instance type does, or \
         security groups that allow everything in both directions, whose flows are not tracked",
    ),
    (
        "pps_allowance_exceeded",
        "packets a second",
        "the provider drops or delays further packets before they reach this machine and its guard; \
         a larger instance type or the provider's DDoS protection helps",
    ),
    (
        "bw_in_allowance_exceeded",
        "incoming bandwidth",
        "the provider drops or delays further packets before they reach this machine and its guard",
    ),
    (
        "bw_out_allowance_exceeded",
        "outgoing bandwidth",
        "the provider drops or delays further packets",
    ),
    (
        "linklocal_allowance_exceeded",
        "packets a second to its own services",
        "queries to its DNS, NTP and metadata services are lost, which looks like a full table; a \
         caching resolver on this machine helps",
    ),
];

/// The statistics of an interface whose driver has some of them.
#[derive(Clone, Debug)]
pub(super) struct Allowances {
    interface: String,
    driver: Driver,
    statistics: Vec<Statistic>,
}

pub(super) fn read(host: &Host) -> Result<Vec<Allowances>, Unread> {
    const PLACE: &str = "statistics of network cards";
    if !host.is_this() {
        return Err(Unread::new(PLACE, "a copy of a machine has no drivers to ask"));
    }
    let links = links().map_err(|error| Unread::new(PLACE, &error))?;
    let mut found = Vec::new();
    for link in links.into_iter().filter(|link| link.kind.is_none() && link.hardware == ETHERNET) {
        let interface = link.name;
        let unread = |error| Unread::new(format!("{PLACE}: {interface}"), &error);
        let Some(driver) = Driver::of(&interface).map_err(unread)? else { continue };
        let statistics = driver.statistics(&interface, is_wanted).map_err(unread)?;
        if !statistics.is_empty() {
            found.push(Allowances { interface, driver, statistics });
        }
    }
    Ok(found)
}

pub(super) fn check(
    before: Result<Vec<Allowances>, Unread>,
    table: Option<TableNumbers>,
    findings: &mut Findings,
) {
    for before in findings.read("provider-limit", before).unwrap_or_default() {
        let Allowances { interface, driver, statistics } = &before;
        let unread = |error| Unread::new(format!("statistics of {interface}"), &error);
        let after = driver.statistics(interface, is_wanted).map_err(unread);
        if let Some(after) = findings.read("provider-limit", after) {
            findings.add(exceeded(interface, statistics, &after));
            findings.add(table.and_then(|table| little_room(interface, &after, table)));
        }
    }
}

fn is_wanted(name: &str) -> bool {
    name == AVAILABLE || EXCEEDED.iter().any(|(exceeded, ..)| *exceeded == name)
}

fn value(statistics: &[Statistic], name: &str) -> Option<u64> {
    statistics.iter().find(|one| one.name == name).map(|one| one.value)
}

fn exceeded(interface: &str, before: &[Statistic], after: &[Statistic]) -> Vec<Finding> {
    let found = EXCEEDED.iter().filter_map(|(name, limits, why)| {
        let total = value(after, name)?;
        let now = total.saturating_sub(value(before, name).unwrap_or(total));
        let (severity, exceeds, before) = if now > 0 {
            (Severity::Fault, "exceeds", "")
        } else {
            (Severity::Warning, "has exceeded", " before")
        };
        let what = format!("{interface} {exceeds} the provider's limit of {limits}{before}");
        let (place, read) = (format!("ethtool -S {interface}: {name}"), format!("{total} packets"));
        Finding::of("provider-limit", severity, what)
            .read(place, format!("{read}, {now} during the audit"))
            .because(*why)
            .when(total > 0)
    });
    found.collect()
}

/// The provider's own table will be full before this one.
fn little_room(interface: &str, after: &[Statistic], table: TableNumbers) -> Option<Finding> {
    let (available, room) = (value(after, AVAILABLE)?, table.max.checked_sub(table.count)?);
    let what = format!(
        "the provider will track only {available} more connections; this table has room for {room}"
    );
    Finding::note("provider-room", what)
        .read(format!("ethtool -S {interface}: {AVAILABLE}"), available)
        .because(
            "the provider's limit will be reached first; flows of security groups that allow \
             everything do not count towards it",
        )
        .when(available < room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    fn statistics(pairs: &[(&str, u64)]) -> Vec<Statistic> {
        pairs
            .iter()
            .map(|(name, value)| Statistic { name: (*name).to_owned(), value: *value })
            .collect()
    }

    fn found(before: &[(&str, u64)], after: &[(&str, u64)]) -> Vec<Severity> {
        let found = exceeded("ens5", &statistics(before), &statistics(after));
        found.iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn what_is_exceeded_now_is_a_fault_and_what_was_before_a_warning() {
        let conntrack = "conntrack_allowance_exceeded";
        assert_eq!(found(&[(conntrack, 7)], &[(conntrack, 9)]), [Severity::Fault]);
        assert_eq!(found(&[(conntrack, 7)], &[(conntrack, 7)]), [Severity::Warning]);
        assert_eq!(found(&[(conntrack, 0)], &[(conntrack, 0)]), []);
        assert_eq!(found(&[], &[(conntrack, 7)]), [Severity::Warning], "it came meanwhile");
        let both = [("pps_allowance_exceeded", 1), ("bw_in_allowance_exceeded", 1)];
        assert_eq!(found(&both, &both), [Severity::Warning; 2]);
    }

    /// Fails when a card's other statistics are taken for a provider's.
    #[test]
    fn other_statistics_are_not_asked_for() {
        assert!(is_wanted("conntrack_allowance_available"));
        assert!(is_wanted("linklocal_allowance_exceeded"));
        for other in ["tx_timeout", "queue_0_rx_cnt", "rx_drops", "ena_admin_q_out_of_space"] {
            assert!(!is_wanted(other), "{other}");
        }
    }

    #[test]
    fn a_provider_with_less_room_than_the_table_is_worth_a_note() {
        let available = statistics(&[(AVAILABLE, 76_952)]);
        let table = |count, max| TableNumbers { count, max, buckets: max };
        assert!(little_room("ens5", &available, table(1000, 262_144)).is_some());
        assert!(little_room("ens5", &available, table(1000, 65_536)).is_none());
        assert!(little_room("ens5", &available, table(1000, 0)).is_none(), "no maximum");
        assert!(little_room("ens5", &[], table(1000, 262_144)).is_none());
    }
}
