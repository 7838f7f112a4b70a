//! Incidents: from when a class leaves calm until all classes have been calm for a minute.
//! `recorder` finds them, the daemon keeps them (`daemon/incidents.rs`), `ctguard incidents` shows them,
//! `ctguard report` writes a page about one.

mod html;
mod page;
mod plot;
mod recorder;
mod series;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{report::SCHEMA_VERSION, services::ServiceHeld};

pub(crate) use page::{Colophon, page};
pub(crate) use recorder::{Reading, Recorder};
pub(crate) use series::Series;
pub(crate) use text::write_incidents;

/// Incidents that are kept.
pub(crate) const MOST: usize = 100;

/// One incident, as it is kept and as `--json` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Incident {
    /// From 1 on, one more for each.
    pub(crate) number: u64,
    /// Times are RFC 3339, UTC.
    pub(crate) began: String,
    /// When it was last seen to go on.
    pub(crate) seen: String,
    /// Null while it goes on.
    pub(crate) ended: Option<String>,
    /// It ended for the record only, because the daemon did.
    pub(crate) daemon_ended: bool,
    /// Nothing was dropped for a part of it at least.
    pub(crate) was_dry_run: bool,
    pub(crate) peak_entries: u64,
    pub(crate) peak_at: String,
    pub(crate) max_entries: u64,
    pub(crate) peak_fill_ratio: f64,
    /// The fill up to which the guard let the table go, at the end; 0 if it was not recorded.
    pub(crate) target_ratio: f64,
    /// Those that left calm.
    pub(crate) classes: BTreeMap<String, Peak>,
    /// New flows that were admitted, by tier.
    pub(crate) admitted_by_tier: BTreeMap<String, u64>,
    /// Entries that were deleted to make room, by class.
    pub(crate) reclaimed: BTreeMap<String, u64>,
    /// Of sources on a deny list; they are not among the refused flows.
    pub(crate) denied_packets: u64,
    /// Peaks of the sources that lost most to a limit, then of those that held most. Packets may name
    /// any source.
    pub(crate) sources: Vec<Seen>,
    /// The same for IPv4 /24 and IPv6 /48, of the sources that the daemon named.
    pub(crate) networks: Vec<Seen>,
    /// Peaks of the services that most unanswered entries led to, then of those with most entries.
    pub(crate) services: Vec<ServiceHeld>,
    /// Empty if it was not recorded.
    pub(crate) series: Series,
}

impl Incident {
    /// Ends the record of one that goes on, because its daemon ended then.
    pub(crate) fn end_with_daemon(&mut self, time: String) {
        (self.ended, self.daemon_ended) = (Some(time), true);
    }

    /// What people are told after its end.
    const fn note(&self) -> &'static str {
        if self.daemon_ended { " (the daemon stopped)" } else { "" }
    }
}

/// Incidents as `--json` and the hook have them.
#[derive(Serialize)]
pub(crate) struct IncidentsReport<'a> {
    schema_version: u32,
    incidents: &'a [Incident],
}

impl<'a> IncidentsReport<'a> {
    pub(crate) const fn new(incidents: &'a [Incident]) -> Self {
        Self { schema_version: SCHEMA_VERSION, incidents }
    }
}

/// One class in an incident.
#[expect(clippy::struct_field_names, reason = "keys of JSON")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Peak {
    pub(crate) highest_stage: String,
    /// Of one second.
    pub(crate) peak_arriving_per_second: f64,
    pub(crate) peak_admitted_per_second: f64,
    pub(crate) peak_refused_per_second: f64,
    pub(crate) flows: ClassFlows,
}

/// New flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClassFlows {
    pub(crate) admitted: u64,
    pub(crate) challenged: u64,
    /// By the label of the reason.
    pub(crate) refused: BTreeMap<String, u64>,
}

/// A source or network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Seen {
    pub(crate) name: String,
    #[serde(rename = "asks_per_second")]
    pub(crate) asks: f64,
    #[serde(rename = "refused_per_second")]
    pub(crate) refused: f64,
    #[serde(rename = "holds_entries")]
    pub(crate) holds: u32,
}
