//! Decides what connection tracking should be set to; changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    doctor::{
        BUCKET_BYTES, LEAST_OF_ROUTER, Role, TIMEOUTS, entries_bytes, has_gibibyte, is_too_wide,
        with_margin,
    },
    host::{BUCKETS, EXPECT_MAX, EntrySize, MAX, Memory, TableNumbers},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Max {
    /// As many entries as fit into an eighth of the memory, and never fewer than now.
    Auto,
    Entries(u64),
}

/// The most entries that are chosen, however much memory there is: kube-proxy's limit.
const MOST: u64 = 1 << 20;
/// The hash may take this part of the available memory, all at once.
pub(crate) const PART_OF_AVAILABLE: u64 = 4;
/// A full table may take this part of all memory.
const PART_OF_MEMORY: u64 = 8;

#[derive(Clone, Debug)]
pub(super) struct Now {
    pub table: TableNumbers,
    pub is_size_ours: bool,
    pub memory: Memory,
    pub entry: EntrySize,
    pub expect_max: Option<u64>,
    /// What it should be, where helpers have no room.
    pub wanted_expect_max: Option<u64>,
    /// The timeouts that this kernel has, in seconds, by key.
    pub timeouts: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: String,
    pub now: u64,
    pub then: u64,
    pub why: String,
}

impl Change {
    pub fn changes(&self) -> bool {
        self.now != self.then
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "--max {max} is too small: a table holds {count} entries now, and new flows would be dropped \
         at once; use a larger maximum, or wait until the table holds fewer"
    )]
    BelowCount { max: u64, count: u64 },
    #[error("--max {0} is too small for a table; use at least 1024")]
    TooSmall(u64),
    #[error(
        "--max {max} needs {hash_mebibytes} MiB at once for the hash, and {available_mebibytes} MiB of \
         memory are available; use a smaller maximum"
    )]
    TooLarge { max: u64, hash_mebibytes: u64, available_mebibytes: u64 },
    #[error(
        "the maximum can be set only in the first network namespace: omit --max, or run nsenter \
         --target 1 --net ctguard tune"
    )]
    NotOurs,
}

/// All settings, also those that stay, in an order in which no flow is lost: the hash grows before
/// the table does.
pub(super) fn plan(now: &Now, role: Role, wanted: Max) -> Result<Vec<Change>, PlanError> {
    let max = max(now, role, wanted)?;
    let buckets = buckets(now, wanted, max)?;
    let change = |key: &str, now, then, why: &str| {
        let (key, why) = (key.to_owned(), why.to_owned());
        Change { key, now, then, why }
    };
    let hash_why = if buckets < now.table.buckets {
        "in a wider hash, the kernel often finds no entry to replace in a full table"
    } else {
        "one bucket for each entry keeps lookups short"
    };
    let mut changes = vec![
        change(BUCKETS, now.table.buckets, buckets, hash_why),
        change(MAX, now.table.max, max, &max_reason(now, wanted, max)),
    ];
    let wanted_expect = now.wanted_expect_max.filter(|_| now.is_size_ours);
    let expect_why = if wanted_expect.is_some() {
        "helpers (FTP, SIP, TFTP) had no room for the connections that they expect"
    } else {
        "kept, as another hash would change it when the module is loaded"
    };
    changes.extend(
        now.expect_max
            .map(|expect| change(EXPECT_MAX, expect, wanted_expect.unwrap_or(expect), expect_why)),
    );
    for rule in TIMEOUTS.iter().filter(|rule| rule.is_tuned()) {
        let key = rule.key();
        let Some(&now) = now.timeouts.get(&key) else { continue };
        let (then, why) = match rule.judge(now, role) {
            Some(wrong) => (wrong.should_be, wrong.why),
            None => (now, "fits"),
        };
        changes.push(change(&key, now, then, why));
    }
    Ok(changes)
}

/// One bucket for each entry; a wider hash stays, unless it is too wide. The kernel takes this
/// memory at once, so it must leave enough.
fn buckets(now: &Now, wanted: Max, max: u64) -> Result<u64, PlanError> {
    let kept = now.table.buckets;
    let buckets = max.checked_next_power_of_two().unwrap_or(u64::MAX);
    if !now.is_size_ours {
        return Ok(kept);
    }
    if is_too_wide(max, kept) {
        return Ok(buckets);
    }
    if max < now.table.max || buckets <= kept {
        return Ok(kept);
    }
    let most = now.memory.available_bytes / PART_OF_AVAILABLE;
    let bytes = buckets.saturating_mul(BUCKET_BYTES);
    let (hash_mebibytes, available_mebibytes) = (bytes >> 20, now.memory.available_bytes >> 20);
    let too_large = PlanError::TooLarge { max, hash_mebibytes, available_mebibytes };
    match wanted {
        _ if bytes <= most => Ok(buckets),
        Max::Auto => Ok(kept),
        Max::Entries(_) => Err(too_large),
    }
}

fn max(now: &Now, role: Role, wanted: Max) -> Result<u64, PlanError> {
    match wanted {
        Max::Auto if !now.is_size_ours => Ok(now.table.max),
        Max::Entries(max) if max == now.table.max => Ok(max),
        Max::Entries(_) if !now.is_size_ours => Err(PlanError::NotOurs),
        Max::Entries(max) if max < 1024 => Err(PlanError::TooSmall(max)),
        Max::Entries(max) if max <= with_margin(now.table.count) => {
            Err(PlanError::BelowCount { max, count: now.table.count })
        }
        Max::Entries(max) => Ok(max),
        Max::Auto => {
            let each = entries_bytes(1, &now.entry).saturating_add(BUCKET_BYTES);
            let fits = now.memory.total_bytes / PART_OF_MEMORY / each;
            // Rounded down to a power of two.
            let fits = (fits + 1).next_power_of_two() / 2;
            let is_large_router = role != Role::Server && has_gibibyte(now.memory);
            let least = if is_large_router { LEAST_OF_ROUTER } else { 0 };
            let chosen = fits.min(MOST).max(least).max(now.table.max);
            // The table must have room beyond its present entries, also where it had no maximum.
            let twice = now.table.count.saturating_mul(2);
            let holds = twice.checked_next_power_of_two().unwrap_or(u64::MAX);
            Ok(if twice > now.table.max { chosen.max(holds) } else { chosen })
        }
    }
}

fn max_reason(now: &Now, wanted: Max, max: u64) -> String {
    match wanted {
        Max::Entries(_) => "as requested".to_owned(),
        Max::Auto if max == now.table.max => "unchanged".to_owned(),
        Max::Auto => format!(
            "fits into an eighth of the memory ({} MiB), which entries take only when they are created",
            now.memory.total_bytes >> 20
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIBIBYTE: u64 = 1 << 30;
    const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

    fn small_machine() -> Now {
        Now {
            table: TableNumbers { count: 500, max: 7680, buckets: 7680 },
            is_size_ours: true,
            memory: Memory { total_bytes: GIBIBYTE, available_bytes: GIBIBYTE / 2 },
            entry: EntrySize { bytes: 256, place: None },
            expect_max: None,
            wanted_expect_max: None,
            timeouts: BTreeMap::from([(ESTABLISHED.to_owned(), 432_000)]),
        }
    }

    fn then(changes: &[Change], key: &str) -> u64 {
        changes.iter().find(|change| change.key == key).unwrap().then
    }

    #[test]
    fn a_small_router_gets_what_its_memory_bears_and_the_hash_first() {
        let changes = plan(&small_machine(), Role::NatRouter, Max::Auto).unwrap();
        assert_eq!(changes[0].key, BUCKETS);
        assert_eq!((then(&changes, MAX), then(&changes, BUCKETS)), (262_144, 262_144));
        assert_eq!(then(&changes, ESTABLISHED), 7440);
        assert!(changes.iter().all(Change::changes));
    }

    /// Fails when a plan shrinks what somebody chose.
    #[test]
    fn nothing_is_lowered_that_was_not_asked_for() {
        let now = Now {
            table: TableNumbers { count: 500, max: 4_000_000, buckets: 4_194_304 },
            ..small_machine()
        };
        let changes = plan(&now, Role::Server, Max::Auto).unwrap();
        assert_eq!(then(&changes, MAX), 4_000_000);
        assert_eq!(then(&changes, BUCKETS), 4_194_304);
    }

    #[test]
    fn a_hash_much_wider_than_the_maximum_is_narrowed_and_another_is_not() {
        let with = |max, wanted| {
            let now = Now {
                table: TableNumbers { count: 500, max, buckets: 262_144 },
                ..small_machine()
            };
            let changes = plan(&now, Role::Server, wanted).unwrap();
            (then(&changes, MAX), then(&changes, BUCKETS))
        };
        assert_eq!(with(16_384, Max::Entries(16_384)), (16_384, 16_384));
        assert_eq!(with(262_144, Max::Entries(20_000)), (20_000, 32_768));
        assert_eq!(with(262_144, Max::Entries(65_536)), (65_536, 262_144));
        assert_eq!(with(16_384, Max::Auto), (262_144, 262_144), "the memory bears more entries");
    }

    #[test]
    fn a_maximum_below_the_count_is_refused_with_both_numbers() {
        let now = Now {
            table: TableNumbers { count: 70_000, max: 131_072, buckets: 7680 },
            ..small_machine()
        };
        let error = plan(&now, Role::Server, Max::Entries(65_536)).unwrap_err();
        assert_eq!(error, PlanError::BelowCount { max: 65_536, count: 70_000 });
        assert!(plan(&now, Role::Server, Max::Entries(5)).is_err());
        let lower = plan(&now, Role::Server, Max::Entries(100_000)).unwrap();
        assert_eq!((then(&lower, MAX), then(&lower, BUCKETS)), (100_000, 7680));
    }

    /// Fails when a table without a maximum is given one that it exceeds.
    #[test]
    fn a_maximum_that_is_chosen_leaves_room_for_what_the_table_holds() {
        let unlimited = Now {
            table: TableNumbers { count: 600_000, max: 0, buckets: 65_536 },
            ..small_machine()
        };
        let changes = plan(&unlimited, Role::Server, Max::Auto).unwrap();
        assert_eq!(then(&changes, MAX), 2_097_152);
        assert!(plan(&unlimited, Role::Server, Max::Entries(650_000)).is_err());
    }

    /// Fails when one zero too many brings the machine down.
    #[test]
    fn a_hash_that_memory_does_not_bear_is_refused_with_its_size() {
        let plan = |max| plan(&small_machine(), Role::NatRouter, Max::Entries(max));
        assert!(matches!(plan(100_000_000), Err(PlanError::TooLarge { hash_mebibytes: 1024, .. })));
        assert!(matches!(plan(u64::MAX), Err(PlanError::TooLarge { .. })));
        assert!(plan(4_000_000).is_ok());
    }

    /// Fails when a container is told to set what is the host's.
    #[test]
    fn outside_the_first_namespace_the_size_stays_and_timeouts_are_set() {
        let elsewhere = Now { is_size_ours: false, ..small_machine() };
        let changes = plan(&elsewhere, Role::NatRouter, Max::Auto).unwrap();
        assert_eq!((then(&changes, MAX), then(&changes, BUCKETS)), (7680, 7680));
        assert_eq!(then(&changes, ESTABLISHED), 7440);
        let refused = plan(&elsewhere, Role::NatRouter, Max::Entries(65_536));
        assert_eq!(refused.unwrap_err(), PlanError::NotOurs);
    }

    #[test]
    fn timeouts_that_are_fine_stay_and_too_short_ones_are_raised() {
        let with = |seconds| Now {
            timeouts: BTreeMap::from([(ESTABLISHED.to_owned(), seconds)]),
            ..small_machine()
        };
        let then =
            |seconds, role| then(&plan(&with(seconds), role, Max::Auto).unwrap(), ESTABLISHED);
        assert_eq!(then(54_000, Role::Server), 54_000);
        assert_eq!(then(600, Role::Server), 7440);
        assert_eq!(then(432_000, Role::Gateway), 86_400);
    }
}
