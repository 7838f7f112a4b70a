//! The status of a guard: from what was observed to the document.

use std::io::{self, Write};

use ctguard_datapath::sources;
use ctguard_layout::{
    CLASSES, Class, DaemonFacts, Environment, Interface, Limits, Policy, Rate, TIERS, Tier,
    units::Ticks,
};
use serde::Serialize;

use super::{
    by_class::ByClass, counters::CounterReport, detection::DetectionReport, schema::SCHEMA_VERSION,
    status_text,
};
use crate::terminal::write_json;
use ctguard_audit::doctor::Health;
use ctguard_kernel::maps::Totals;
use ctguard_units::{TableSample, in_force};

const MILLION: f64 = 1_000_000.0;

/// Everything that a status is made of, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    /// Conntrack is there.
    pub(crate) loaded: bool,
    pub(crate) table: TableSample,
    pub(crate) policy: Policy,
    pub(crate) environment: Environment,
    /// Jiffies.
    pub(crate) now: u64,
    /// Jiffies.
    pub(crate) heartbeat: u64,
    pub(crate) admitted: [u64; TIERS],
    pub(crate) limits: [u64; TIERS],
    /// What the controller found last.
    pub(crate) found: Limits,
    /// Regulars and proven sources that the data path knows.
    pub(crate) known_sources: KnownSourceCounts,
    /// Shares of the memories that are in use, 0 to 1.
    pub(crate) memories: MemoryLoads,
    pub(crate) interfaces: Vec<ObservedInterface>,
    /// Its pid.
    pub(crate) daemon: Option<u32>,
    pub(crate) totals: Totals,
    pub(crate) allowed_prefixes: usize,
    pub(crate) denied_prefixes: usize,
    /// Share of the known-flows filter's bits that are set, 0 to 1.
    pub(crate) known_load: f64,
    pub(crate) map_bytes: u64,
}

/// Sources that are known one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownSourceCounts {
    pub(crate) regulars: usize,
    pub(crate) proven: usize,
}

/// How full what is remembered for seconds is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryLoads {
    pub(crate) retries: f64,
    pub(crate) answered: f64,
    pub(crate) resets: f64,
}

/// A guarded interface as it was found.
#[derive(Clone, Debug)]
pub(crate) struct ObservedInterface {
    pub(crate) name: String,
    pub(crate) attached: bool,
    pub(crate) interface: Interface,
}

/// What `ctguard status --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    schema_version: u32,
    pub(super) conntrack: ConntrackReport,
    pub(super) stage: &'static str,
    pub(super) stages: ByClass<&'static str>,
    pub(super) tiers: Vec<TierReport>,
    pub(super) known_sources: KnownSourcesReport,
    memories: MemoriesReport,
    pub(super) grant: GrantReport,
    /// Where no interface has its own.
    pub(super) limits: ByClass<ScopesReport>,
    pub(super) interfaces: Vec<InterfaceReport>,
    pub(super) new_flow_detection: DetectionReport,
    pub(super) known_flows: KnownFlowsReport,
    pub(super) dry_run: bool,
    pub(super) daemon: DaemonReport,
    pub(super) counters: CounterReport,
    pub(super) lists: ListsReport,
    maps: MapsReport,
}

/// The guarded table.
#[derive(Debug, Serialize)]
pub(super) struct ConntrackReport {
    /// False: this kernel tracks no connections yet.
    pub(super) loaded: bool,
    pub(super) count: u64,
    pub(super) max: u64,
    /// Null for a table without a maximum.
    pub(super) fill_ratio: Option<f64>,
    pub(super) target_ratio: f64,
}

/// One tier of sources; while every class is calm all but allowed ones are strangers.
#[derive(Debug, Serialize)]
pub(super) struct TierReport {
    pub(super) name: &'static str,
    /// New flows admitted since the guard was loaded, packets that rest on an admission included.
    pub(super) admitted: u64,
    /// New flows that may come until the daemon's next tick.
    pub(super) remaining: u64,
    /// New flows a second that each source may open; null is no share.
    pub(super) share: ByClass<Option<f64>>,
}

/// Sources that are known one by one.
#[derive(Debug, Serialize)]
pub(super) struct KnownSourcesReport {
    pub(super) regulars: usize,
    /// Proven sources that are no regulars.
    pub(super) proven: usize,
    pub(super) capacity: u32,
    pub(super) load_ratio: f64,
}

/// How full what is remembered for seconds is; beyond 1 the oldest gives way.
#[derive(Debug, Serialize)]
struct MemoriesReport {
    retries: LoadReport,
    answered: LoadReport,
    resets: LoadReport,
}

#[derive(Debug, Serialize)]
struct LoadReport {
    load_ratio: f64,
}

/// New flows that may come until the daemon's next tick.
#[derive(Debug, Serialize)]
pub(super) struct GrantReport {
    pub(super) remaining: u64,
    pub(super) allowed_remaining: u64,
    /// No daemon lives, and the fallback rate holds instead.
    pub(super) fallback_active: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ScopesReport {
    pub(super) source: RateReport,
}

/// New flows a second, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RateReport {
    pub(super) rate: u32,
    pub(super) burst: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct InterfaceReport {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mode: &'static str,
    pub(super) attached: bool,
    /// The conntrack zone that flows are looked up in; 0 is the default zone.
    pub(super) zone: u32,
    pub(super) limits: ByClass<ScopesReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct DaemonReport {
    pub(super) running: bool,
    pub(super) pid: Option<u32>,
    /// Null before the first.
    pub(super) heartbeat_age_seconds: Option<f64>,
}

/// The filter that stands before conntrack's answer.
#[derive(Debug, Serialize)]
pub(super) struct KnownFlowsReport {
    /// It has held the whole table; else every packet of an unknown flow is asked about.
    pub(super) complete: bool,
    /// Since the table was dumped into it last; a minute and a little where all is well. Null before
    /// the first time.
    pub(super) dump_age_seconds: Option<f64>,
    /// Share of its bits that are set; its fourth power of strangers are asked about in vain.
    pub(super) load_ratio: f64,
}

/// Prefixes on the lists.
#[derive(Debug, Serialize)]
pub(super) struct ListsReport {
    pub(super) allow: usize,
    pub(super) deny: usize,
}

#[derive(Debug, Serialize)]
struct MapsReport {
    bytes: u64,
}

impl StatusReport {
    /// What an audit wants to know of it.
    pub(crate) fn health(&self) -> Health {
        let named = |wanted: &dyn Fn(&InterfaceReport) -> bool| {
            let interfaces = self.interfaces.iter().filter(|interface| wanted(interface));
            interfaces.map(|interface| interface.name.clone()).collect()
        };
        Health {
            daemon_runs: self.daemon.running,
            fallback: self.grant.fallback_active,
            dry_run: self.dry_run,
            detached: named(&|interface| !interface.attached),
            generic: named(&|interface| interface.attached && interface.mode == "generic"),
            heartbeat_age_seconds: self.daemon.heartbeat_age_seconds,
            known_flows_load: self.known_flows.load_ratio,
            known_sources_load: self.known_sources.load_ratio,
            map_bytes: self.maps.bytes,
            ..Health::default()
        }
    }

    pub(crate) fn new(observation: &Observation) -> Self {
        let Observation { table, policy, .. } = observation;
        let of = |class: Class| observation.found.stage(class);
        let stage = Class::ALL.map(of).into_iter().max().unwrap_or_default().name();
        let KnownSourceCounts { regulars, proven } = observation.known_sources;
        let memories = observation.memories;
        Self {
            schema_version: SCHEMA_VERSION,
            conntrack: ConntrackReport {
                loaded: observation.loaded,
                count: table.entries,
                max: table.max,
                fill_ratio: (table.max > 0).then(|| as_f64(table.entries) / as_f64(table.max)),
                target_ratio: f64::from(policy.target_ppm) / MILLION,
            },
            stage,
            stages: ByClass::new(|class| of(class).name()),
            tiers: Tier::ALL.map(|tier| tier_report(tier, observation)).into(),
            known_sources: KnownSourcesReport {
                regulars,
                proven,
                capacity: sources::CAPACITY,
                load_ratio: ratio(regulars + proven, sources::CAPACITY),
            },
            memories: MemoriesReport {
                retries: LoadReport { load_ratio: memories.retries },
                answered: LoadReport { load_ratio: memories.answered },
                resets: LoadReport { load_ratio: memories.resets },
            },
            grant: grant(observation),
            limits: limits(&policy.source, &[Rate::default(); CLASSES]),
            interfaces: observation.interfaces.iter().map(|i| interface(i, policy)).collect(),
            new_flow_detection: DetectionReport::new(&observation.environment),
            known_flows: KnownFlowsReport {
                complete: observation.environment.daemon.known_complete != 0,
                dump_age_seconds: dump_age(observation),
                load_ratio: observation.known_load,
            },
            dry_run: policy.has(Policy::DRY_RUN),
            daemon: DaemonReport {
                running: observation.daemon.is_some(),
                pid: observation.daemon,
                heartbeat_age_seconds: (observation.heartbeat > 0).then(|| age(observation)),
            },
            counters: CounterReport::new(&observation.totals),
            lists: ListsReport {
                allow: observation.allowed_prefixes,
                deny: observation.denied_prefixes,
            },
            maps: MapsReport { bytes: observation.map_bytes },
        }
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        write_json(out, self)
    }

    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        status_text::write(self, out)
    }
}

fn tier_report(tier: Tier, observation: &Observation) -> TierReport {
    let place = tier as usize;
    let (admitted, limit) = (observation.admitted[place], observation.limits[place]);
    let shares = observation.found.shares[tier.slot()];
    let second =
        f64::from(observation.environment.daemon.jiffies_per_second) * as_f64(Ticks::PER_JIFFY);
    let share = |class: Class| {
        let interval = shares[class as usize].interval.0;
        (interval > 0).then(|| second / as_f64(interval))
    };
    TierReport {
        name: tier.name(),
        admitted,
        remaining: limit.saturating_sub(admitted),
        share: ByClass::new(share),
    }
}

fn ratio(part: usize, whole: u32) -> f64 {
    u32::try_from(part).map_or(1.0, |part| f64::from(part) / f64::from(whole))
}

fn grant(observation: &Observation) -> GrantReport {
    let Observation { limits, admitted, environment, .. } = observation;
    let remaining = |tier: Tier| limits[tier as usize].saturating_sub(admitted[tier as usize]);
    let patience = u64::from(environment.daemon.heartbeat_patience_jiffies);
    GrantReport {
        remaining: remaining(Tier::Strangers),
        allowed_remaining: remaining(Tier::Allowed),
        fallback_active: observation.now.saturating_sub(observation.heartbeat) > patience,
    }
}

fn age(observation: &Observation) -> f64 {
    let jiffies = observation.now.saturating_sub(observation.heartbeat);
    as_f64(jiffies) / f64::from(observation.environment.daemon.jiffies_per_second.max(1))
}

fn dump_age(observation: &Observation) -> Option<f64> {
    let DaemonFacts { known_turned_at, jiffies_per_second, .. } = observation.environment.daemon;
    let jiffies = observation.now.saturating_sub(known_turned_at);
    (known_turned_at > 0).then(|| as_f64(jiffies) / f64::from(jiffies_per_second.max(1)))
}

fn interface(observed: &ObservedInterface, policy: &Policy) -> InterfaceReport {
    InterfaceReport {
        name: observed.name.clone(),
        ifindex: observed.interface.ifindex,
        mode: match observed.interface.mode {
            Interface::NATIVE => "native",
            Interface::GENERIC => "generic",
            _ => "unknown",
        },
        attached: observed.attached,
        zone: observed.interface.zone,
        limits: limits(&policy.source, &observed.interface.overrides),
    }
}

fn limits(policy: &[Rate; CLASSES], own: &[Rate; CLASSES]) -> ByClass<ScopesReport> {
    let of = |class: Class| {
        let rate = in_force(policy[class as usize], own[class as usize]);
        ScopesReport { source: RateReport { rate: rate.flows_per_second, burst: rate.burst } }
    };
    ByClass::new(of)
}

#[expect(clippy::cast_precision_loss, reason = "counts of entries and jiffies stay below 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
