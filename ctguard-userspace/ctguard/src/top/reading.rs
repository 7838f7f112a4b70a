//! What is read of the guard: counts at each refresh, and facts that change slowly.

use std::time::Duration;

use ctguard_control::sources::SourceScope;
use ctguard_layout::{CLASSES, Class, Stage, Tier};

use crate::{
    holders::Holders,
    interfaces::Waited,
    report::{CounterReport, StatusReport},
};

/// Counts since the guard was loaded, and the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Monotonic.
    pub(crate) at: Duration,
    pub(crate) entries: u64,
    /// 0 is no maximum.
    pub(crate) max: u64,
    pub(crate) stages: [Stage; CLASSES],
    pub(crate) classes: [ClassCounts; CLASSES],
    /// Challenges that were answered.
    pub(crate) answered: u64,
    /// Packets of sources on a deny list, which open no flow.
    pub(crate) denied_packets: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ClassCounts {
    pub(crate) admitted: u64,
    pub(crate) challenged: u64,
    /// By the label of the reason.
    pub(crate) refused: Vec<(&'static str, u64)>,
}

impl Counts {
    pub(crate) fn new(
        at: Duration,
        (entries, max): (u64, u64),
        stages: [Stage; CLASSES],
        counters: &CounterReport,
    ) -> Self {
        let classes = Class::ALL.map(|class| {
            let of_class = counters.of(class);
            let [admitted, challenged, _] = of_class.verdicts();
            ClassCounts { admitted, challenged, refused: of_class.refusals().collect() }
        });
        let answered = counters.packets().filter(|(label, _)| *label == "challenge_answered");
        let answered = answered.map(|(_, packets)| packets).sum();
        let denied_packets = counters.denied_packets();
        Self { at, entries, max, stages, classes, answered, denied_packets }
    }
}

/// What changes slowly.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) is_tracking: bool,
    pub(crate) target: f64,
    /// As they are shown.
    pub(crate) interfaces: Vec<String>,
    pub(crate) is_dry_run: bool,
    pub(crate) daemon: Daemon,
    pub(crate) regulars: u32,
    pub(crate) proven: u32,
    pub(crate) allowed: usize,
    pub(crate) denied: usize,
    pub(crate) holders: Option<Holders>,
    /// What is wrong, in a sentence.
    pub(crate) fault: Option<String>,
    /// Why each class is in its stage; none in calm.
    pub(crate) causes: [Option<String>; CLASSES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Daemon {
    #[default]
    Runs,
    /// It does not tick, though a process holds its lock.
    Hangs,
    IsGone,
}

impl Facts {
    pub(crate) fn new(status: &StatusReport, causes: [Option<String>; CLASSES]) -> Self {
        let interfaces = status.interfaces.iter().map(|interface| {
            let gone = if interface.attached { "" } else { " (NOT ATTACHED)" };
            format!("{}{gone}", interface.name)
        });
        let daemon = match (status.daemon.running, status.grant.fallback_active) {
            (false, _) => Daemon::IsGone,
            (true, true) => Daemon::Hangs,
            (true, false) => Daemon::Runs,
        };
        Self {
            is_tracking: status.conntrack.loaded,
            target: status.conntrack.target_ratio,
            interfaces: interfaces.chain(status.waiting.iter().map(Waited::text)).collect(),
            is_dry_run: status.dry_run,
            daemon,
            regulars: status.known_sources.regulars,
            proven: status.known_sources.proven,
            allowed: status.lists.allow,
            denied: status.lists.deny,
            holders: status.holders.clone(),
            fault: status.fault(),
            causes,
        }
    }
}

/// The source that a slot of the data path saw last, and what it counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) slot: usize,
    pub(crate) source: SourceScope,
    /// New flows of all classes; it wraps.
    pub(crate) counted: u32,
}

/// What the guard has of one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// `allowed` and `denied` sources are on a list.
    pub(crate) tier: &'static str,
    /// New flows of a known source outside calm; it wraps.
    pub(crate) counted: Option<u32>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { tier: Tier::Strangers.name(), counted: None }
    }
}
