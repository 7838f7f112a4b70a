//! Who holds the table, as the daemon's last look found it: a file that `ctguard status` reads.

use std::{cmp::Reverse, collections::BTreeMap, fs, io, path::PathBuf, time::SystemTime};

use log::warn;
use serde::{Deserialize, Serialize};

use crate::{
    files::{FileError, publish},
    services::ServiceHeld,
    tally::{Count, Tally},
};
use ctguard_control::{
    holdings::Parts,
    look::{Held, Kind, Look},
    refusals::Refusal,
    sources::SourceScope,
    standing::Standings,
};
use ctguard_kernel::run_directory;

/// Sources that are named; texts and events name the first few.
const NAMED: usize = 20;
const SAID: usize = 5;
/// Sources that are counted.
const MOST_SOURCES: usize = 2048;
/// Longer silence counts as idle.
const IDLE_SECONDS: u32 = 60;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holders {
    /// RFC 3339, UTC.
    pub(crate) looked_at: String,
    pub(crate) entries: u64,
    /// Entries in each state, the most first.
    pub(crate) states: Vec<StateHolders>,
    /// Those that hold most, the most first.
    pub(crate) sources: Vec<SourceHolder>,
    /// Null while all entries fit into the target.
    pub(crate) parts: Option<PartReport>,
    /// Entries that may be deleted when room is needed.
    pub(crate) reclaimable: u64,
    /// Entries deleted since the daemon started, by class.
    pub(crate) reclaimed: BTreeMap<String, u64>,
    /// Entries per second by which the table grew between the last two looks.
    pub(crate) growth_per_second: f64,
    /// Sources that open more flows than a limit allows, those that lose most first.
    #[serde(default)]
    pub(crate) above_limits: Vec<AboveLimit>,
    /// Services that most unanswered entries lead to, then those with most entries.
    #[serde(default)]
    pub(crate) services: Vec<ServiceHeld>,
}

/// A source that opens more flows than a limit allows, whether or not the limit is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AboveLimit {
    /// An IPv4 address, or an IPv6 /64. Packets may name any.
    pub(crate) source: String,
    pub(crate) class: String,
    /// New flows per second that it tries to open …
    pub(crate) flows_per_second: f64,
    /// … and how many of them the limit refuses, or would refuse if it were in force.
    pub(crate) refused_per_second: f64,
    /// `ceiling`, which the operator set; `default-ceiling`, which does not hold in calm; `share`.
    pub(crate) limit: String,
    pub(crate) limit_per_second: f64,
    pub(crate) burst: f64,
}

impl From<&Refusal> for AboveLimit {
    fn from(refusal: &Refusal) -> Self {
        let Refusal { source, class, flows_per_second, refused_per_second, limit } = *refusal;
        Self {
            source: source.to_string(),
            class: class.name().to_owned(),
            flows_per_second,
            refused_per_second,
            limit: limit.kind.name().to_owned(),
            limit_per_second: limit.rate,
            burst: limit.burst,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StateHolders {
    pub(crate) state: String,
    pub(crate) entries: u64,
    /// Those without a packet for a minute.
    pub(crate) idle_entries: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceHolder {
    /// An IPv4 address, or an IPv6 /64. Packets that were not answered may name any.
    pub(crate) source: String,
    pub(crate) entries: u32,
    /// By state, the most first.
    pub(crate) states: Vec<(String, u32)>,
    pub(crate) is_above_part: bool,
}

/// The most that one source may hold; null is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartReport {
    pub(crate) connections: Option<u32>,
    /// The same for a source that was there before the attack.
    #[serde(default)]
    pub(crate) connections_before: Option<u32>,
    pub(crate) other_entries: Option<u32>,
}

/// What a look counts beside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    idle: [u64; Kind::COUNT],
    /// Entries by kind.
    sources: Tally<SourceScope, [u32; Kind::COUNT], MOST_SOURCES>,
}

impl Count for [u32; Kind::COUNT] {
    type Rank = u32;

    fn rank(&self) -> u32 {
        self.iter().sum()
    }
}

impl Sums {
    pub(crate) fn add(&mut self, held: &Held) {
        let is_idle = held.idle.is_some_and(|seconds| seconds >= IDLE_SECONDS);
        self.idle[held.kind as usize] += u64::from(is_idle);
        self.sources.of(held.source)[held.kind as usize] += 1;
    }
}

impl Holders {
    /// The few sources that texts name.
    pub(crate) fn most(&self) -> &[SourceHolder] {
        &self.sources[..self.sources.len().min(SAID)]
    }

    pub(crate) fn new<T>(look: &Look<T>, standings: &Standings, sums: &Sums) -> Self {
        let state = |kind: Kind| StateHolders {
            state: kind.name().to_owned(),
            entries: look.by_kind[kind as usize],
            idle_entries: sums.idle[kind as usize],
        };
        let mut states: Vec<_> = Kind::ALL.map(state).into();
        states.retain(|state| state.entries > 0);
        states.sort_by_key(|state| Reverse(state.entries));
        let marks = standings.marks();
        let holder = |(source, kinds): (SourceScope, [u32; Kind::COUNT])| {
            let states = Kind::ALL.map(|kind| (kind.name().to_owned(), kinds[kind as usize]));
            let mut states: Vec<_> =
                states.into_iter().filter(|(_, entries)| *entries > 0).collect();
            states.sort_by_key(|(_, entries)| Reverse(*entries));
            SourceHolder {
                source: source.to_string(),
                entries: kinds.iter().sum(),
                states,
                is_above_part: marks.contains_key(&source),
            }
        };
        let found = standings.parts();
        let parts = PartReport {
            connections: found.proving,
            connections_before: found.before,
            other_entries: found.other,
        };
        Self {
            looked_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            entries: look.entries,
            states,
            sources: sums.sources.ranked().into_iter().take(NAMED).map(holder).collect(),
            parts: (found != Parts::default()).then_some(parts),
            reclaimable: look.queue.len(),
            ..Self::default()
        }
    }
}

/// The file of one namespace, until a reboot.
#[derive(Clone, Debug)]
pub(crate) struct HoldersFile(PathBuf);

impl HoldersFile {
    pub(crate) fn of_this_namespace() -> io::Result<Self> {
        run_directory::of_this_namespace("holders.json").map(Self)
    }

    pub(crate) fn write(&self, holders: &Holders) -> Result<(), FileError> {
        publish(&self.0, holders)
    }

    /// Forgets what an earlier daemon found.
    pub(crate) fn clear(&self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("until the first look, `ctguard status` shows an earlier one: {error}");
        }
    }

    /// `None` before the first look.
    pub(crate) fn read(&self) -> Option<Holders> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_most_is_found_among_more_sources_than_are_counted() {
        let mut sums = Sums::default();
        for number in 0..20_000_u32 {
            let mut add = |source, kind| {
                let source = SourceScope::V4(source);
                sums.add(&Held { source, kind, idle: Some(60), deletable: true, proves: false });
            };
            add(1000 + number, Kind::Unanswered);
            if number % 4 == 0 {
                add(7, if number % 8 == 0 { Kind::Established } else { Kind::Stream });
            }
        }
        let (source, kinds) = sums.sources.ranked()[0];
        assert_eq!((source, kinds[Kind::Established as usize]), (SourceScope::V4(7), 2500));
        assert!(sums.sources.len() <= MOST_SOURCES);
        assert_eq!(sums.idle[Kind::Unanswered as usize], 20_000);
    }
}
