//! The status of a guard: what `ctguard status --json` prints.

use serde::Serialize;

use crate::{holders::Holders, interfaces::Waited};

use super::{
    by_class::ByClass, counters::CounterReport, detection::DetectionReport,
    event_text::unreadable_text, feeds::FeedsReport,
};

#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    pub(crate) schema_version: u32,
    pub(crate) conntrack: ConntrackReport,
    pub(crate) stage: &'static str,
    pub(crate) stages: ByClass<&'static str>,
    /// Who holds the table; null before the daemon's first look at it.
    pub(crate) holders: Option<Holders>,
    pub(crate) tiers: Vec<TierReport>,
    pub(crate) known_sources: KnownSourcesReport,
    pub(crate) memories: MemoriesReport,
    pub(crate) grant: GrantReport,
    /// Where no interface has its own.
    pub(crate) limits: ByClass<ScopesReport>,
    pub(crate) interfaces: Vec<InterfaceReport>,
    /// Names that are to be guarded and cannot be yet.
    pub(crate) waiting: Vec<Waited>,
    pub(crate) new_flow_detection: DetectionReport,
    pub(crate) known_flows: KnownFlowsReport,
    /// Nothing is dropped, by a setting or a pause.
    pub(crate) dry_run: bool,
    /// Null if there is none.
    pub(crate) pause: Option<PauseReport>,
    pub(crate) daemon: DaemonReport,
    pub(crate) counters: CounterReport,
    pub(crate) unreadable: UnreadableReport,
    pub(crate) lists: ListsReport,
    pub(crate) feeds: FeedsReport,
    pub(crate) maps: MapsReport,
}

impl StatusReport {
    /// What keeps the guard from its work, in a sentence.
    pub(crate) fn fault(&self) -> Option<String> {
        self.unreadable.is_fault.then(|| unreadable_text(self.unreadable.share_ratio))
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ConntrackReport {
    /// False: this kernel tracks no connections yet.
    pub(crate) loaded: bool,
    pub(crate) count: u64,
    pub(crate) max: u64,
    /// Null for a table without a maximum.
    pub(crate) fill_ratio: Option<f64>,
    pub(crate) target_ratio: f64,
}

/// While every class is calm, all sources but the allowed ones are strangers.
#[derive(Debug, Serialize)]
pub(crate) struct TierReport {
    pub(crate) name: &'static str,
    /// Since the guard was loaded, including packets that follow an admission.
    pub(crate) admitted: u64,
    /// New flows that may come until the daemon's next tick.
    pub(crate) remaining: u64,
    /// New flows a second that each source may open; null is no share.
    pub(crate) share: ByClass<Option<f64>>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct KnownSourcesReport {
    pub(crate) regulars: u32,
    /// Without those that are regulars too.
    pub(crate) proven: u32,
    /// Proved nothing, and hold more than their part.
    pub(crate) challenged: u32,
    pub(crate) capacity: u32,
    pub(crate) load_ratio: f64,
}

/// Near 1 the oldest answers are forgotten early, and not every sender that may come again is
/// remembered.
#[derive(Debug, Serialize)]
pub(crate) struct MemoriesReport {
    pub(crate) retries: LoadReport,
    pub(crate) answered: LoadReport,
}

#[derive(Debug, Serialize)]
pub(crate) struct LoadReport {
    pub(crate) load_ratio: f64,
}

/// New flows that may come until the daemon's next tick.
#[derive(Debug, Serialize)]
pub(crate) struct GrantReport {
    pub(crate) remaining: u64,
    pub(crate) allowed_remaining: u64,
    /// No daemon ticks, and the fallback rate applies.
    pub(crate) fallback_active: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScopesReport {
    pub(crate) source: RateReport,
}

/// New flows a second, and at once.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct RateReport {
    pub(crate) rate: u32,
    pub(crate) burst: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct InterfaceReport {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    pub(crate) mode: &'static str,
    pub(crate) attached: bool,
    /// The conntrack zone that flows are looked up in; 0 is the default zone.
    pub(crate) zone: u32,
    pub(crate) limits: ByClass<ScopesReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PauseReport {
    /// RFC 3339, UTC.
    pub(crate) until: String,
    /// 0: it is over, and ends as soon as a daemon or `ctguard pause` sees that.
    pub(crate) left_seconds: u64,
    pub(crate) dry_run_after: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct DaemonReport {
    pub(crate) running: bool,
    pub(crate) pid: Option<u32>,
    /// Null before the first.
    pub(crate) heartbeat_age_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct KnownFlowsReport {
    /// The filter has held the whole table; until then every unknown flow costs a lookup.
    pub(crate) complete: bool,
    /// Since the last dump into the filter, about a minute; null before the first.
    pub(crate) dump_age_seconds: Option<f64>,
    /// Share of its bits that are set. Its fourth power is the share of new flows that are looked
    /// up in vain.
    pub(crate) load_ratio: f64,
}

/// Frames that passed because a header of theirs was cut short, impossible, or where the driver puts
/// none, since the guard was loaded.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct UnreadableReport {
    pub(crate) share_ratio: f64,
    pub(crate) is_fault: bool,
}

/// Prefixes on the operator's own lists.
#[derive(Debug, Serialize)]
pub(crate) struct ListsReport {
    pub(crate) allow: usize,
    pub(crate) deny: usize,
    /// By the deny list, since the guard was loaded.
    pub(crate) refused_packets: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct MapsReport {
    pub(crate) bytes: u64,
}
