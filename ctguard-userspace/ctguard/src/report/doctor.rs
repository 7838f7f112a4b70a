//! The result of `ctguard doctor`.

use serde::Serialize;

use super::SCHEMA_VERSION;
use ctguard_audit::doctor::{Audit, Finding, Skipped};

/// What `ctguard doctor --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct DoctorReport<'a> {
    schema_version: u32,
    /// There are only notes.
    pub(super) clean: bool,
    /// Null where conntrack is not loaded.
    pub(super) table: Option<TableReport>,
    pub(super) findings: &'a [Finding],
    pub(super) skipped: &'a [Skipped],
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct TableReport {
    pub(super) count: u64,
    /// 0 is no maximum.
    pub(super) max: u64,
    pub(super) buckets: u64,
    pub(super) fill_ratio: Option<f64>,
    /// The memory of a full table.
    pub(super) full_entries_bytes: u64,
    pub(super) hash_bytes: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) flood_flows_per_second: u32,
    /// How long such a flood needs to fill the rest; null without a maximum.
    pub(super) flood_seconds_to_full: Option<f64>,
}

impl<'a> DoctorReport<'a> {
    pub(crate) fn new(audit: &'a Audit, flood_flows_per_second: u32) -> Self {
        let table = audit.summary.map(|summary| TableReport {
            count: summary.table.count,
            max: summary.table.max,
            buckets: summary.table.buckets,
            fill_ratio: summary.table.fill_ratio(),
            full_entries_bytes: summary.footprint.entries_bytes,
            hash_bytes: summary.footprint.hash_bytes,
            memory_bytes: summary.memory.map(|memory| memory.total_bytes),
            flood_flows_per_second,
            flood_seconds_to_full: summary.seconds_to_full(flood_flows_per_second),
        });
        Self {
            schema_version: SCHEMA_VERSION,
            clean: audit.is_clean(),
            table,
            findings: &audit.findings,
            skipped: &audit.skipped,
        }
    }
}
