//! Whether the table is large enough, its hash wide enough, and whether memory suffices for both.

use super::{
    finding::{Finding, Findings},
    planned::Planned,
    size::{
        FILL, LEAST_OF_ROUTER, MEMORY, entries_bytes, has_gibibyte, is_too_wide,
        replacement_chance, table_bytes, with_margin,
    },
    text::{mebibytes, per_cent, share},
};
use crate::host::{BUCKETS, COUNT, EntrySize, Host, MAX, Memory, TableNumbers, sysctl_path};

/// Entries for each bucket: more than 4, more than 8. Every entry is in the hash twice, so as many
/// buckets as entries make chains of two (`Documentation/networking/nf_conntrack-sysctl.rst`).
const PER_BUCKET: [f64; 2] = [4.01, 8.01];

pub(super) fn check(
    host: &Host,
    table: TableNumbers,
    entry: &EntrySize,
    memory: Option<Memory>,
    planned: &Planned,
    findings: &mut Findings,
) {
    findings.add(fill(table));
    let no_maximum = Finding::warning("no-maximum", "the table has no maximum")
        .read(sysctl_path(MAX), 0)
        .because("a flood will use up the machine's memory")
        .tune("ctguard tune --apply");
    findings.add(no_maximum.when(table.max == 0));
    findings.add(hash(table, planned));
    findings.add(wide_hash(table, planned));
    let Some(memory) = memory else { return };
    findings.add(memory_of(table, entry, memory));
    if let Some(Some(place)) = findings.read("small-table", host.forwards()) {
        findings.add(small(table, memory, place));
    }
}

fn fill(table: TableNumbers) -> Option<Finding> {
    let TableNumbers { count, max, .. } = table;
    let fill = table.fill_ratio()?;
    let what = format!("the table is {} full: {count} of {max} entries", per_cent(fill));
    Finding::graded("fill", fill, FILL, what)?
        .read(sysctl_path(COUNT), count)
        .read(sysctl_path(MAX), max)
        .because(
            "once the table is full, the kernel drops each new flow for which it finds no entry to \
             replace, and it never replaces one that is ASSURED",
        )
        .tune("ctguard tune --apply")
        .into()
}

fn hash(table: TableNumbers, planned: &Planned) -> Option<Finding> {
    let TableNumbers { max, buckets, .. } = table;
    let ratio = share(max, buckets);
    let what = format!(
        "the hash is too narrow: {buckets} buckets for up to {max} entries, {ratio:.0} for each bucket"
    );
    let finding = Finding::graded("hash", ratio, PER_BUCKET, what)?
        .read(sysctl_path(MAX), max)
        .read(sysctl_path(BUCKETS), buckets)
        .because(
            "every packet searches a chain of entries, and long chains cost CPU. The advice to have a \
             quarter or an eighth as many buckets as entries is for old kernels; today's have one \
             bucket for each entry. In a full table the kernel searches eight buckets for an entry to \
             replace (`early_drop`): here it nearly always finds one, but searches long chains for it",
        );
    another_hash(finding, planned).when(buckets > 0)
}

/// What sets the hash; nothing where tune would leave it, for want of memory.
fn another_hash(finding: Finding, planned: &Planned) -> Finding {
    match planned.set_hash() {
        Some(command) => finding.tune("ctguard tune --apply").by_hand(command),
        None => finding,
    }
}

/// Only a warning, as it does no harm before the table is full.
fn wide_hash(table: TableNumbers, planned: &Planned) -> Option<Finding> {
    let TableNumbers { max, buckets, .. } = table;
    let chance = per_cent(replacement_chance(max, buckets));
    let what = format!("the hash is too wide: {buckets} buckets for up to {max} entries");
    let finding = Finding::warning("hash-wide", what)
        .read(sysctl_path(MAX), max)
        .read(sysctl_path(BUCKETS), buckets)
        .because(format!(
            "in a full table the kernel searches eight buckets for an entry to replace \
             (`early_drop`). Most buckets of so wide a hash are empty: even if the kernel may replace \
             every entry, it finds one for only {chance} of new flows, and drops the others. With a \
             bucket for each entry it nearly always finds one. A wide hash does no harm until the \
             table is full"
        ));
    another_hash(finding, planned).when(is_too_wide(max, buckets))
}

fn memory_of(table: TableNumbers, entry: &EntrySize, memory: Memory) -> Option<Finding> {
    let bytes = table_bytes(table.max, table.buckets, entry);
    let share = share(bytes, memory.available_bytes);
    let (bytes, share_text) = (mebibytes(bytes), per_cent(share));
    let what = format!("a full table would take {bytes}, {share_text} of the available memory");
    let place = entry.place.unwrap_or("size of an entry (assumed)");
    let fits = |max: &u64| entries_bytes(*max, entry) < quarter(memory.available_bytes);
    let smaller = (10..32).rev().map(|bits| 1 << bits).find(fits);
    let finding = Finding::graded("memory", share, MEMORY, what)?
        .read(place, format!("{} bytes", entry.bytes))
        .read("/proc/meminfo: MemAvailable", mebibytes(memory.available_bytes))
        .read(sysctl_path(MAX), table.max)
        .because("the kernel cannot swap entries out, so other programs run out of memory");
    let finding = match smaller.filter(|max| *max > with_margin(table.count)) {
        Some(max) => finding.tune(format!("ctguard tune --max {max} --apply")),
        None => finding,
    };
    Some(finding)
}

/// What a smaller table and its hash may take without a warning.
const fn quarter(bytes: u64) -> u64 {
    bytes / 5
}

fn small(table: TableNumbers, memory: Memory, forwards: String) -> Option<Finding> {
    let is_small = (1..LEAST_OF_ROUTER).contains(&table.max);
    let (total, max) = (mebibytes(memory.total_bytes), table.max);
    Finding::warning("small-table", format!("a router with {total} tracks only {max} flows"))
        .read(sysctl_path(MAX), max)
        .read(forwards, 1)
        .read("/proc/meminfo: MemTotal", total)
        .because(
            "this default is for a small machine; one busy client behind a router opens thousands of \
             flows",
        )
        .tune("ctguard tune --apply")
        .when(is_small && has_gibibyte(memory))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use crate::doctor::{finding::Severity, testing::Machine};

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
    fn a_maximum_lowered_without_the_hash_is_a_warning_from_an_eighth_on() {
        let machine = Machine::healthy("capacity-wide");
        let lower = |max: &str| {
            for path in ["netfilter/nf_conntrack_max", "nf_conntrack_max"] {
                machine.write(&format!("/proc/sys/net/{path}"), max);
            }
        };
        lower("65536\n");
        assert!(machine.found().is_empty(), "a full table finds an entry in 98 of 100 cases");
        lower("32768\n");
        assert_eq!(machine.found(), [("hash-wide", Severity::Warning)]);
        let why = &machine.audit().findings[0].why;
        assert!(why.contains("only 86 % of new flows"), "{why}");
    }

    #[test]
    fn a_size_that_only_the_first_namespace_sets_is_mended_there() {
        let machine = Machine::healthy("capacity-namespace");
        machine.write("/proc/sys/net/netfilter/nf_conntrack_buckets", "16384\n");
        let max = machine.host().path("/proc/sys/net/netfilter/nf_conntrack_max");
        fs::set_permissions(max, fs::Permissions::from_mode(0o444)).unwrap();
        let audit = machine.audit();
        let commands: Vec<_> =
            audit.notes("hash")[0].mend.iter().map(|mend| mend.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "nsenter --target 1 --net ctguard tune --apply",
                "nsenter --target 1 --net sysctl -w net.netfilter.nf_conntrack_buckets=1048576 \
                 net.netfilter.nf_conntrack_max=1048576"
            ]
        );
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
        machine.write("/proc/sys/net/netfilter/nf_conntrack_buckets", "7680\n");
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
