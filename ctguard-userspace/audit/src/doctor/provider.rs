//! Limits that the provider of a virtual machine sets outside of it, as its network cards tell them.
//!
//! Amazon's do (`ena_hw_stats_strings` and its forerunner `ena_stats_eni_strings`,
//! `drivers/net/ethernet/amazon/ena/ena_ethtool.c`); who has no such statistics is not asked for
//! numbers.

use super::finding::{Finding, Findings};
use crate::host::{Host, TableNumbers, Unread};
use ctguard_kernel::net::{Driver, Statistic, links};

/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
/// How many more connections it will track.
const AVAILABLE: &str = "conntrack_allowance_available";

/// Packets that were dropped, or held back, beyond a limit, and what it is a limit of.
const EXCEEDED: [(&str, &str, &str); 5] = [
    (
        "conntrack_allowance_exceeded",
        "connections",
        "the provider tracks connections as well, for its security groups, and drops those beyond \
         what this type of machine may have: nf_conntrack_max does not help; a larger type does, or \
         rules that allow all in both directions, whose flows it does not track",
    ),
    (
        "pps_allowance_exceeded",
        "packets a second",
        "what is beyond is dropped or held back outside of this machine, before any guard: a larger \
         type, or the provider's own protection, helps",
    ),
    (
        "bw_in_allowance_exceeded",
        "bandwidth inwards",
        "what is beyond is dropped or held back outside of this machine, before any guard",
    ),
    (
        "bw_out_allowance_exceeded",
        "bandwidth outwards",
        "what is beyond is dropped or held back outside of this machine",
    ),
    (
        "linklocal_allowance_exceeded",
        "packets a second to its own services",
        "queries to its resolver, clock and metadata are lost, which looks like a full table: a \
         resolver of one's own that remembers answers helps",
    ),
];

/// What one interface tells of them.
#[derive(Clone, Debug)]
pub(super) struct Allowances {
    interface: String,
    driver: Driver,
    statistics: Vec<Statistic>,
}

/// Of every interface that tells any.
pub(super) fn read(host: &Host) -> Result<Vec<Allowances>, Unread> {
    const PLACE: &str = "statistics of network cards";
    if !host.is_this() {
        return Err(Unread::new(PLACE, "only the machine itself can ask its drivers"));
    }
    let links = links().map_err(|error| Unread::new(PLACE, &error))?;
    let mut told = Vec::new();
    for link in links.iter().filter(|link| link.kind.is_none() && link.hardware == ETHERNET) {
        let unread = |error| Unread::new(format!("{PLACE}: {}", link.name), &error);
        let Some(driver) = Driver::of(&link.name).map_err(unread)? else { continue };
        let statistics = driver.statistics(&link.name, is_wanted).map_err(unread)?;
        if !statistics.is_empty() {
            told.push(Allowances { interface: link.name.clone(), driver, statistics });
        }
    }
    Ok(told)
}

/// B9, of the list in `docs/doctor.md`.
pub(super) fn check(
    before: Result<Vec<Allowances>, Unread>,
    table: Option<TableNumbers>,
    findings: &mut Findings,
) {
    for before in findings.read("provider-limit", before).unwrap_or_default() {
        let Allowances { interface, driver, statistics } = &before;
        let after = driver.statistics(interface, is_wanted);
        let after =
            after.map_err(|error| Unread::new(format!("statistics of {interface}"), &error));
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
    let found = EXCEEDED.iter().filter_map(|(name, what, why)| {
        let total = value(after, name).filter(|total| *total > 0)?;
        let now = total.saturating_sub(value(before, name).unwrap_or(total));
        let finding = if now > 0 {
            let what = format!("the provider's limit of {what} is passed now, on {interface}");
            Finding::fault("provider-limit", what)
        } else {
            let what = format!("the provider's limit of {what} was passed before, on {interface}");
            Finding::warning("provider-limit", what)
        };
        let place = format!("ethtool -S {interface}: {name}");
        Some(
            finding
                .read(place, format!("{total} packets, {now} of them during the audit"))
                .because(*why),
        )
    });
    found.collect()
}

/// The provider's own table is full before this one.
fn little_room(interface: &str, after: &[Statistic], table: TableNumbers) -> Option<Finding> {
    let available = value(after, AVAILABLE)?;
    let room = table.max.checked_sub(table.count).filter(|room| available < *room)?;
    Some(
        Finding::note(
            "provider-room",
            format!(
                "the provider tracks {available} more connections, and this table has room for {room}"
            ),
        )
        .read(format!("ethtool -S {interface}: {AVAILABLE}"), available)
        .because(
            "the provider's limit comes first; flows that its security groups let through by rules \
             that allow all do not count there",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

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
