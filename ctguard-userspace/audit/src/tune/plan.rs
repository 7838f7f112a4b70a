//! What a machine's connection tracking should be set to, from what it is.

use serde::{Deserialize, Serialize};

use crate::host::{BUCKETS, EXPECT_MAX, EntrySize, MAX, Memory, TableNumbers};

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Forwards and translates addresses for others.
    NatRouter,
    /// Forwards, with stateful rules, and translates nothing.
    Gateway,
    /// Serves.
    Server,
}

/// How many entries the table shall take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Max {
    /// As many as an eighth of the memory holds, and never fewer than now.
    Auto,
    Entries(u64),
}

/// Entries of a table, whatever the memory: kube-proxy's limit, and enough for most.
const MOST: u64 = 1 << 20;
/// Of a router with a gibibyte and more.
const LEAST_OF_ROUTER: u64 = 1 << 16;
const GIBIBYTE: u64 = 1 << 30;
/// A pointer.
const BUCKET_BYTES: u64 = 8;
/// The part of the available memory that the hash may take, which the kernel takes at once.
const PART_OF_AVAILABLE: u64 = 4;
/// The part of the memory that a full table may take.
const PART_OF_MEMORY: u64 = 8;

/// What is so now.
#[derive(Clone, Debug)]
pub(super) struct Now {
    pub table: TableNumbers,
    /// The maximum and the hash can be set from here.
    pub is_size_ours: bool,
    pub memory: Memory,
    pub entry: EntrySize,
    /// Flows that helpers may announce; none where the kernel has no such limit.
    pub expect_max: Option<u64>,
    /// Timeouts in seconds, of those that the kernel has, by key.
    pub timeouts: Vec<(&'static str, u64)>,
}

/// One setting: what it is, what it shall be, and why.
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

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "--max {max} leaves no room beside what the table, or another network namespace's, holds now \
         ({count} entries): new flows would be dropped at once; give more, or wait until it holds \
         less"
    )]
    BelowCount { max: u64, count: u64 },
    #[error("--max {0} is no size for a table; give 1024 at least")]
    TooSmall(u64),
    #[error(
        "--max {max} needs a hash of {hash_mebibytes} MiB at once, of {available_mebibytes} MiB of \
         memory that are available: give less"
    )]
    TooLarge { max: u64, hash_mebibytes: u64, available_mebibytes: u64 },
    #[error(
        "the maximum can be set in the first network namespace alone: leave out --max, or use \
         nsenter --target 1 --net"
    )]
    NotOurs,
}

/// A timeout's rule: behind `net.netfilter.nf_conntrack_`, what is fine, and what else it becomes.
struct TimeoutRule {
    key: &'static str,
    fine: fn(u64, Role) -> bool,
    then: fn(u64, Role) -> u64,
    why: &'static str,
}

const TIMEOUTS: &[TimeoutRule] = &[
    TimeoutRule {
        key: "net.netfilter.nf_conntrack_tcp_timeout_established",
        fine: |seconds, role| (7440..=established(role)).contains(&seconds),
        then: |seconds, role| if seconds < 7440 { 7440 } else { established(role) },
        why: "connections whose ends went away are forgotten sooner; RFC 5382 asks a NAT for 7440 \
            s",
    },
    TimeoutRule {
        key: "net.netfilter.nf_conntrack_tcp_timeout_syn_sent",
        fine: |seconds, _| (10..=60).contains(&seconds),
        then: |_, _| 60,
        why: "SYNs are repeated after 1, 3, 7, 15 and 31 s; who scans holds entries half as long",
    },
    TimeoutRule {
        key: "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        fine: |seconds, _| seconds <= 60,
        then: |_, _| 60,
        why: "closed connections make up most of a busy table",
    },
    TimeoutRule {
        key: "net.netfilter.nf_conntrack_udp_timeout",
        fine: |seconds, _| seconds >= 10,
        then: |_, _| 30,
        why: "an answer that takes longer finds no entry",
    },
    TimeoutRule {
        key: "net.netfilter.nf_conntrack_udp_timeout_stream",
        fine: |seconds, _| (120..=180).contains(&seconds),
        then: |_, _| 120,
        why: "RFC 4787 asks a NAT for 120 s; more fills the table",
    },
    TimeoutRule {
        key: "net.netfilter.nf_conntrack_generic_timeout",
        fine: |seconds, _| seconds <= 120,
        then: |_, _| 120,
        why: "of protocols that conntrack does not know",
    },
];

/// The keys of timeouts that are tuned.
pub(super) fn timeout_keys() -> impl Iterator<Item = &'static str> {
    TIMEOUTS.iter().map(|rule| rule.key)
}

const fn established(role: Role) -> u64 {
    match role {
        // As OpenWrt has it.
        Role::NatRouter => 7440,
        Role::Gateway | Role::Server => 86_400,
    }
}

/// What to set, settings that stay among it, in an order that can lose no flow while the table
/// grows: the hash is wide before there is more to find in it.
pub(super) fn plan(now: &Now, role: Role, wanted: Max) -> Result<Vec<Change>, PlanError> {
    let max = max(now, role, wanted)?;
    // A table that shall be smaller needs no wider hash, and keeps the one it has.
    let buckets = if max < now.table.max || !now.is_size_ours {
        now.table.buckets
    } else {
        match buckets(now, max) {
            Err(_) if wanted == Max::Auto => now.table.buckets,
            buckets => buckets?.max(now.table.buckets),
        }
    };
    let mut changes = vec![
        Change {
            key: BUCKETS.to_owned(),
            now: now.table.buckets,
            then: buckets,
            why: "a bucket for each entry: every packet walks a chain".to_owned(),
        },
        Change {
            key: MAX.to_owned(),
            now: now.table.max,
            then: max,
            why: max_reason(now, wanted, max),
        },
    ];
    changes.extend(now.expect_max.map(|expect_max| Change {
        key: EXPECT_MAX.to_owned(),
        now: expect_max,
        then: expect_max,
        why: "a module that is loaded with a wider hash would change it as well".to_owned(),
    }));
    for &(key, seconds) in &now.timeouts {
        let Some(timeout) = TIMEOUTS.iter().find(|timeout| timeout.key == key) else { continue };
        let then =
            if (timeout.fine)(seconds, role) { seconds } else { (timeout.then)(seconds, role) };
        changes.push(Change {
            key: key.to_owned(),
            now: seconds,
            then,
            why: timeout.why.to_owned(),
        });
    }
    Ok(changes)
}

/// A bucket for each entry. The kernel takes the memory at once, which must leave enough to others.
fn buckets(now: &Now, max: u64) -> Result<u64, PlanError> {
    let most = now.memory.available_bytes / PART_OF_AVAILABLE;
    let buckets = max.checked_next_power_of_two().unwrap_or(u64::MAX);
    let bytes = buckets.saturating_mul(BUCKET_BYTES);
    if bytes > most {
        return Err(PlanError::TooLarge {
            max,
            hash_mebibytes: bytes >> 20,
            available_mebibytes: now.memory.available_bytes >> 20,
        });
    }
    Ok(buckets)
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
            let each = (now.entry.bytes * 115 / 100 + BUCKET_BYTES).max(1);
            let bears = now.memory.total_bytes / PART_OF_MEMORY / each;
            // Rounded down to a power of two.
            let bears = (bears + 1).next_power_of_two() / 2;
            let router = matches!(role, Role::NatRouter | Role::Gateway);
            let least = if router && now.memory.total_bytes >= GIBIBYTE / 100 * 95 {
                LEAST_OF_ROUTER
            } else {
                0
            };
            // Of a table without a maximum, as of any, what it holds must leave room.
            let holds = if now.table.count * 2 > now.table.max {
                now.table.count.saturating_mul(2).checked_next_power_of_two().unwrap_or(u64::MAX)
            } else {
                0
            };
            Ok(bears.min(MOST).max(least).max(now.table.max).max(holds))
        }
    }
}

/// A table that is full but for an eighth is full at once.
pub(super) fn with_margin(count: u64) -> u64 {
    count.saturating_add(count / 8)
}

fn max_reason(now: &Now, wanted: Max, max: u64) -> String {
    match wanted {
        Max::Entries(_) => "as asked for".to_owned(),
        Max::Auto if max == now.table.max => "as large as now".to_owned(),
        Max::Auto => format!(
            "an eighth of {} MiB of memory bears as many; it is taken only when they come",
            now.memory.total_bytes >> 20
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

    fn small_machine() -> Now {
        Now {
            table: TableNumbers { count: 500, max: 7680, buckets: 7680 },
            is_size_ours: true,
            memory: Memory { total_bytes: GIBIBYTE, available_bytes: GIBIBYTE / 2 },
            entry: EntrySize { bytes: 256, place: None },
            expect_max: None,
            timeouts: vec![(ESTABLISHED, 432_000)],
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
        let with = |seconds| Now { timeouts: vec![(ESTABLISHED, seconds)], ..small_machine() };
        let then =
            |seconds, role| then(&plan(&with(seconds), role, Max::Auto).unwrap(), ESTABLISHED);
        assert_eq!(then(54_000, Role::Server), 54_000);
        assert_eq!(then(600, Role::Server), 7440);
        assert_eq!(then(432_000, Role::Gateway), 86_400);
    }

    /// Fails when doctor finds fault with what tune has set.
    #[test]
    fn every_rule_is_content_with_what_it_sets() {
        for rule in TIMEOUTS {
            for role in [Role::NatRouter, Role::Gateway, Role::Server] {
                for seconds in [1, 5, 60, 121, 600, 7441, 432_000] {
                    let then = (rule.then)(seconds, role);
                    assert!((rule.fine)(then, role), "{} {then}", rule.key);
                }
            }
        }
    }
}
