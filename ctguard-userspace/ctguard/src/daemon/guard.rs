//! A running guard.

use std::sync::Arc;

use log::{Record, info, warn};

use super::{
    adaptive_timeouts::AdaptiveTimeouts,
    arrivals::Waiting,
    complaints::{Complaints, Line},
    configuration::Configuration,
    guarded::Guarded,
    hook::Hooks,
    incidents::IncidentsKeeper,
    keep_regulars::RegularsKeeper,
    known_flows::KnownFlows,
    lists::ListsKeeper,
    look::Looker,
    others::Others,
    outside::Outside,
    reclaim::Reclaimer,
    tick::Ticker,
    unreadable::Unreadable,
};
use crate::{
    event_file::EventFile, events::What, feeds::Feeds, holders::HoldersFile, log_fields::Fields,
    report::event_text,
};
use ctguard_control::StageChange;
use ctguard_kernel::{
    bpf::{self, KernelClock, ModeChoice, Pins, Programs},
    conntrack::{Table, Timeouts},
    lock::{self, Lock, LockError},
    maps::{GuardMaps, SourceMemory},
    net::Surroundings,
};
use ctguard_units::CoarseClock;

pub(crate) struct Guard {
    pub(crate) pins: Pins,
    pub(crate) lock: Lock,
    pub(crate) programs: Programs,
    pub(crate) maps: GuardMaps,
    pub(crate) table: Table,
    pub(crate) timeouts: Timeouts,
    pub(crate) kernel_clock: KernelClock,
    pub(crate) jiffies_per_second: u32,
    pub(crate) coarse: CoarseClock,
    pub(crate) ticker: Ticker,
    pub(crate) sources: Arc<SourceMemory>,
    pub(crate) looker: Looker,
    pub(crate) regulars: RegularsKeeper,
    pub(crate) reclaimer: Reclaimer,
    pub(crate) adaptive: AdaptiveTimeouts,
    pub(crate) known_flows: KnownFlows,
    pub(super) others: Others,
    pub(super) unreadable: Unreadable,
    pub(crate) events: EventFile,
    pub(crate) holders: HoldersFile,
    pub(crate) interfaces: Vec<Guarded>,
    pub(super) waiting: Waiting,
    /// As the interfaces were looked at last.
    pub(crate) around: Surroundings,
    pub(super) configuration: Configuration,
    pub(super) lists: ListsKeeper,
    pub(super) incidents: IncidentsKeeper,
    pub(super) hooks: Hooks,
    pub(crate) outside: Outside,
    pub(super) feeds: Feeds,
    pub(crate) mode: ModeChoice,
    pub(crate) egress_by_filter: bool,
    /// Changes of stages at the first tick.
    pub(super) unreported: Vec<StageChange>,
    pub(super) complaints: Complaints,
}

impl Guard {
    /// Keeps commands from changing settings; none while one does, because ticks never wait.
    pub(super) fn try_writing(&self) -> Result<Option<Lock>, LockError> {
        lock::try_for_writing(self.pins.path())
    }

    /// Logs an event, and keeps it.
    pub(super) fn report(&mut self, what: What) {
        let (text, fields) = (event_text(&what), Fields::of(&what));
        let mut record = Record::builder();
        record.level(what.level()).target(module_path!()).key_values(&fields);
        log::logger().log(&record.args(format_args!("{text}")).build());
        self.keep(what);
    }

    /// Keeps an event for `ctguard events`.
    pub(super) fn keep(&mut self, what: What) {
        let kept = self.events.add(what).map_err(Into::into);
        self.attempted("keep events", "`ctguard events` lacks some", &kept);
    }

    /// Keeps how many changes of lists commands made beyond those kept one by one.
    pub(super) fn settle_events(&mut self) {
        let settled = self.events.settle().map_err(Into::into);
        self.attempted("keep events", "`ctguard events` lacks some", &settled);
    }

    /// Logs that an attempt to do `task` failed, which means `effect`, or that it works again: not at
    /// each attempt (see [`Complaints`]).
    pub(super) fn attempted(&mut self, task: &str, effect: &str, attempt: &anyhow::Result<()>) {
        match self.complaints.judge(task, effect, attempt, bpf::monotonic()) {
            Some(Line::Failure(text)) => warn!("{text}"),
            Some(Line::End(text)) => info!("{text}"),
            None => {}
        }
    }
}
