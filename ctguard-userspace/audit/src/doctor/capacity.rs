//! Whether the table is large enough, its hash wide enough, and both bearable.

use super::{
    finding::{Finding, Findings},
    text::{mebibytes, per_cent},
};
use crate::host::{BUCKETS, COUNT, EntrySize, Host, MAX, Memory, TableNumbers, sysctl_path};

/// Shares of the maximum: `node_exporter`'s alerts warn at 75 % and page at 90 %.
pub(super) const FILL: [f64; 2] = [FULL_TABLE, 0.9];
/// The share of its maximum from which a table is as good as full.
pub const FULL_TABLE: f64 = 0.75;
/// Entries for each bucket: more than 4, more than 8. Each entry is in the hash twice, so one for each bucket makes chains of
/// two on average (`Documentation/networking/nf_conntrack-sysctl.rst`).
const PER_BUCKET: [f64; 2] = [4.01, 8.01];
/// Shares of the memory that is available.
const MEMORY: [f64; 2] = [0.25, 0.5];
/// A router with a gibibyte or more that tracks fewer has the default of a small machine.
const ROUTER_MAX: u64 = 65_536;
const GIBIBYTE: u64 = 1 << 30;
/// What entries and hash take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footprint {
    /// With a full table.
    pub entries_bytes: u64,
    pub hash_bytes: u64,
}

impl Footprint {
    /// An entry takes 15 % more than its size in slabs that are not full; a bucket is a pointer.
    pub fn of(table: TableNumbers, entry: &EntrySize) -> Self {
        let entries = u128::from(table.max) * u128::from(entry.bytes) * 115 / 100;
        Self {
            entries_bytes: u64::try_from(entries).unwrap_or(u64::MAX),
            hash_bytes: table.buckets.saturating_mul(8),
        }
    }

    pub fn total_bytes(self) -> u64 {
        self.entries_bytes.saturating_add(self.hash_bytes)
    }
}

pub(super) fn check(
    host: &Host,
    table: TableNumbers,
    entry: &EntrySize,
    memory: Option<Memory>,
    findings: &mut Findings,
) {
    findings.add(fill(table));
    findings.add(no_maximum(table));
    findings.add(hash(table));
    let Some(memory) = memory else { return };
    findings.add(memory_of(table, entry, memory));
    if let Some(forwards) = findings.read("small-table", host.forwards()) {
        findings.add(small(table, memory, forwards));
    }
}

fn fill(table: TableNumbers) -> Option<Finding> {
    let fill = table.fill_ratio()?;
    let what =
        format!("the table is {} full: {} of {} entries", per_cent(fill), table.count, table.max);
    let finding = Finding::graded("fill", fill, FILL, what)?
        .read(sysctl_path(COUNT), table.count)
        .read(sysctl_path(MAX), table.max)
        .because(
            "at 100 % the kernel drops every new flow, of everybody; from 95 % on it looks for \
             entries to throw away",
        );
    Some(finding.tune("ctguard tune --apply").by_hand(format!("sysctl -w {MAX}={}", table.max * 2)))
}

fn no_maximum(table: TableNumbers) -> Option<Finding> {
    (table.max == 0).then(|| {
        Finding::warning("no-maximum", "the table has no maximum")
            .read(sysctl_path(MAX), 0)
            .because("a flood then takes memory until the machine has none, instead of flows")
            .tune("ctguard tune --apply")
    })
}

#[expect(clippy::cast_precision_loss, reason = "tables have fewer than 2^52 entries")]
fn hash(table: TableNumbers) -> Option<Finding> {
    if table.buckets == 0 {
        return None;
    }
    let ratio = table.max as f64 / table.buckets as f64;
    let what = format!(
        "{ratio:.0} entries share a bucket of the hash when the table is full ({} in {})",
        table.max, table.buckets
    );
    let finding = Finding::graded("hash", ratio, PER_BUCKET, what)?
        .read(sysctl_path(MAX), table.max)
        .read(sysctl_path(BUCKETS), table.buckets)
        .because(
            "each entry is in the hash twice, and every packet walks half a chain; a maximum that \
             was raised without the hash costs CPU on every packet. Advice to have a quarter or an \
             eighth as many buckets is older than kernels that take as many as entries",
        )
        .tune("ctguard tune --apply")
        .by_hand(format!("sysctl -w {BUCKETS}={}", table.max));
    Some(finding)
}

#[expect(clippy::cast_precision_loss, reason = "memories have fewer than 2^52 bytes")]
fn memory_of(table: TableNumbers, entry: &EntrySize, memory: Memory) -> Option<Finding> {
    let bytes = Footprint::of(table, entry).total_bytes();
    let share = bytes as f64 / memory.available_bytes.max(1) as f64;
    let what = format!(
        "a full table would take {}, {} of the memory that is available",
        mebibytes(bytes),
        per_cent(share)
    );
    let finding = Finding::graded("memory", share, MEMORY, what)?
        .read(entry.place.unwrap_or("an entry's size, presumed"), format!("{} bytes", entry.bytes))
        .read("/proc/meminfo: MemAvailable", mebibytes(memory.available_bytes))
        .because("the kernel cannot swap entries: others lose their memory instead")
        .tune("ctguard tune --max auto --apply");
    Some(finding)
}

fn small(table: TableNumbers, memory: Memory, forwards: bool) -> Option<Finding> {
    let small = forwards
        && (1..ROUTER_MAX).contains(&table.max)
        && memory.total_bytes >= GIBIBYTE / 100 * 95;
    small.then(|| {
        Finding::warning(
            "small-table",
            format!(
                "a router with {} tracks {} flows at most",
                mebibytes(memory.total_bytes),
                table.max
            ),
        )
        .read(sysctl_path(MAX), table.max)
        .read("/proc/sys/net/ipv4/ip_forward", 1)
        .read("/proc/meminfo: MemTotal", mebibytes(memory.total_bytes))
        .because(
            "the kernel chose this for a small machine; one busy client behind a router opens \
             thousands of flows",
        )
        .tune("ctguard tune --for nat-router --apply")
    })
}

#[cfg(test)]
mod tests {
    use crate::doctor::{Severity, testing::Machine};

    #[test]
    fn a_table_three_quarters_full_is_a_warning_and_nine_tenths_a_fault() {
        let machine = Machine::healthy("capacity-fill");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_count", "196608\n");
        assert_eq!(machine.found(), [("fill", Severity::Warning)]);
        machine.write("/proc/sys/net/netfilter/nf_conntrack_count", "240000\n");
        assert_eq!(machine.found(), [("fill", Severity::Fault)]);
    }

    #[test]
    fn a_maximum_raised_without_the_hash_is_found() {
        let machine = Machine::healthy("capacity-hash");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_buckets", "65536\n");
        assert!(machine.found().is_empty(), "a quarter is slow, not wrong");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_buckets", "32768\n");
        assert_eq!(machine.found(), [("hash", Severity::Warning)]);
        machine.write("/proc/sys/net/netfilter/nf_conntrack_buckets", "16384\n");
        assert_eq!(machine.found(), [("hash", Severity::Fault)]);
    }

    #[test]
    fn a_table_that_would_take_the_memory_is_found() {
        let machine = Machine::healthy("capacity-memory");
        machine.write("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 262144 kB\n");
        assert_eq!(machine.found(), [("memory", Severity::Warning)]);
        machine.write("/proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 131072 kB\n");
        assert_eq!(machine.found(), [("memory", Severity::Fault)]);
    }

    #[test]
    fn a_router_with_the_default_of_a_small_machine_is_found_and_a_server_is_not() {
        let machine = Machine::healthy("capacity-small");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_max", "7680\n");
        machine.write("/proc/sys/net/nf_conntrack_max", "7680\n");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_count", "12\n");
        assert!(machine.found().is_empty());
        machine.write("/proc/sys/net/ipv4/ip_forward", "1\n");
        assert_eq!(machine.found(), [("small-table", Severity::Warning)]);
    }

    #[test]
    fn no_maximum_is_found() {
        let machine = Machine::healthy("capacity-none");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_max", "0\n");
        machine.write("/proc/sys/net/nf_conntrack_max", "0\n");
        assert_eq!(machine.found(), [("no-maximum", Severity::Warning)]);
    }
}
