//! What the daemon did and why.

use std::collections::BTreeMap;

use ctguard_layout::Stage;
use log::Level;
use serde::{Deserialize, Serialize};

use crate::{
    holders::{Holders, PartReport, SourceHolder},
    report::MOST_UNREADABLE,
};
use ctguard_control::StageChange;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum What {
    Started {
        interfaces: Vec<String>,
    },
    Stopped,
    /// The guard that was there had another map layout, and this one replaced it.
    Replaced {
        former_layout: u32,
        layout: u32,
    },
    /// The configuration was read again and is in force.
    Reloaded {
        changes: Vec<String>,
    },
    /// A command changed settings or a list.
    Changed {
        changes: Vec<String>,
    },
    /// It was read again and nothing of it is used.
    ReloadRefused {
        error: String,
    },
    /// Nothing is dropped until then (RFC 3339, UTC).
    Paused {
        until: String,
    },
    /// The pause is over; whether the operator's own dry run goes on.
    PauseEnded {
        dry_run: bool,
    },
    Stage(StageEvent),
    /// Entries were deleted to keep room, and no more have been for some seconds, or it has lasted.
    #[serde(rename = "relieved")]
    Reclaimed(Relief),
    /// There is a part of the table for each source, or no longer.
    Part(PartEvent),
    /// A source was above its part for long, and is denied for so many seconds; 0: until it is removed.
    Overload {
        source: String,
        seconds: u32,
    },
    InterfaceGone {
        interface: String,
    },
    InterfaceBack {
        interface: String,
    },
    /// No interface has these names, and each is guarded as soon as one has it; which ones there are.
    InterfaceAwaited {
        interfaces: Vec<String>,
        existing: Vec<String>,
    },
    /// One that was waited for is there and guarded; at which device, if that has another name.
    InterfaceGuarded {
        interface: String,
        device: Option<String>,
    },
    /// One that is named is there and cannot be guarded, so it is waited for.
    InterfaceRefused {
        interface: String,
        error: String,
    },
    /// A feed cannot be read or used, and what it listed before stays.
    FeedFailed {
        feed: String,
        error: String,
    },
    FeedReadAgain {
        feed: String,
        prefixes: u64,
    },
    /// A feed says that it has no prefixes any more, and all that it listed `before` are lifted.
    FeedEmptied {
        feed: String,
        before: u64,
    },
    /// The operator's program about an incident could not be run, or failed.
    HookFailed {
        incident: u64,
        error: String,
    },
    /// The daemon keeps a privilege that it does not need.
    Unconfined {
        error: String,
    },
    /// The share of frames whose headers cannot be read has risen above one in a hundred, or fallen below.
    Unreadable {
        share_ratio: f64,
    },
}

impl What {
    /// A warning is what the operator should act on.
    pub(crate) fn level(&self) -> Level {
        match self {
            Self::Replaced { .. }
            | Self::ReloadRefused { .. }
            | Self::InterfaceGone { .. }
            | Self::InterfaceAwaited { .. }
            | Self::InterfaceRefused { .. }
            | Self::FeedFailed { .. }
            | Self::HookFailed { .. } => Level::Warn,
            Self::Unreadable { share_ratio } if *share_ratio > MOST_UNREADABLE => Level::Warn,
            Self::Started { .. }
            | Self::Stopped
            | Self::Reloaded { .. }
            | Self::Changed { .. }
            | Self::Paused { .. }
            | Self::PauseEnded { .. }
            | Self::Stage(_)
            | Self::Reclaimed(_)
            | Self::Part(_)
            | Self::Overload { .. }
            | Self::InterfaceBack { .. }
            | Self::InterfaceGuarded { .. }
            | Self::FeedReadAgain { .. }
            | Self::FeedEmptied { .. }
            | Self::Unconfined { .. }
            | Self::Unreadable { .. } => Level::Info,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Relief {
    pub(crate) entries_deleted: u64,
    #[serde(default)]
    pub(crate) by_class: BTreeMap<String, u64>,
    /// Those that hold most of what is left.
    #[serde(default)]
    pub(crate) sources: Vec<SourceHolder>,
}

impl Relief {
    pub(crate) fn new(by_class: BTreeMap<String, u64>, holders: &Holders) -> Self {
        let entries_deleted = by_class.values().sum();
        Self { entries_deleted, by_class, sources: holders.most().to_vec() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartEvent {
    /// Null: all entries fit into the target.
    pub(crate) parts: Option<PartReport>,
    pub(crate) entries: u64,
    pub(crate) sources: Vec<SourceHolder>,
}

impl PartEvent {
    pub(crate) fn new(holders: &Holders) -> Self {
        let Holders { parts, entries, .. } = holders;
        Self { parts: *parts, entries: *entries, sources: holders.most().to_vec() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageEvent {
    pub(crate) class: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) fill_ratio: f64,
    pub(crate) headroom_entries: u64,
    pub(crate) others_per_second: f64,
    pub(crate) budget_per_second: f64,
    pub(crate) demand_per_second: f64,
    /// Null while every source may have its ceiling.
    pub(crate) share_per_second: Option<f64>,
    /// Null until that is known.
    pub(crate) sources: Option<usize>,
}

impl From<&StageChange> for StageEvent {
    fn from(change: &StageChange) -> Self {
        let StageChange { class, from, to, steering, demand, share, sources } = change;
        let name = |stage: &Stage| stage.name().to_owned();
        Self {
            class: class.name().to_owned(),
            from: name(from),
            to: name(to),
            fill_ratio: steering.fill,
            headroom_entries: steering.headroom,
            others_per_second: steering.others,
            budget_per_second: steering.budget,
            demand_per_second: *demand,
            share_per_second: *share,
            sources: *sources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of event, with all of its fields.
    fn one_of_each() -> Vec<What> {
        let (interface, feed) = (|| "wan0".to_owned(), || "blocklist".to_owned());
        let text = || "text".to_owned();
        let stage = StageEvent {
            class: text(),
            from: text(),
            to: text(),
            fill_ratio: 0.5,
            headroom_entries: 1,
            others_per_second: 1.0,
            budget_per_second: 1.0,
            demand_per_second: 1.0,
            share_per_second: None,
            sources: None,
        };
        let all = vec![
            What::Started { interfaces: vec![interface()] },
            What::Stopped,
            What::Replaced { former_layout: 1, layout: 2 },
            What::Reloaded { changes: vec![text()] },
            What::Changed { changes: vec![text()] },
            What::ReloadRefused { error: text() },
            What::Paused { until: text() },
            What::PauseEnded { dry_run: false },
            What::Stage(stage),
            What::Reclaimed(Relief {
                entries_deleted: 1,
                by_class: BTreeMap::new(),
                sources: Vec::new(),
            }),
            What::Part(PartEvent { parts: None, entries: 1, sources: Vec::new() }),
            What::Overload { source: text(), seconds: 600 },
            What::InterfaceGone { interface: interface() },
            What::InterfaceBack { interface: interface() },
            What::InterfaceAwaited { interfaces: vec![interface()], existing: vec![text()] },
            What::InterfaceGuarded { interface: interface(), device: None },
            What::InterfaceRefused { interface: interface(), error: text() },
            What::FeedFailed { feed: feed(), error: text() },
            What::FeedReadAgain { feed: feed(), prefixes: 1 },
            What::FeedEmptied { feed: feed(), before: 1 },
            What::HookFailed { incident: 1, error: text() },
            What::Unconfined { error: text() },
            What::Unreadable { share_ratio: 0.5 },
        ];
        for what in &all {
            // A new kind is a new row of docs/reference.md, and a new line above.
            match what {
                What::Started { .. }
                | What::Stopped
                | What::Replaced { .. }
                | What::Reloaded { .. }
                | What::Changed { .. }
                | What::ReloadRefused { .. }
                | What::Paused { .. }
                | What::PauseEnded { .. }
                | What::Stage(_)
                | What::Reclaimed(_)
                | What::Part(_)
                | What::Overload { .. }
                | What::InterfaceGone { .. }
                | What::InterfaceBack { .. }
                | What::InterfaceAwaited { .. }
                | What::InterfaceGuarded { .. }
                | What::InterfaceRefused { .. }
                | What::FeedFailed { .. }
                | What::FeedReadAgain { .. }
                | What::FeedEmptied { .. }
                | What::HookFailed { .. }
                | What::Unconfined { .. }
                | What::Unreadable { .. } => {}
            }
        }
        all
    }

    #[test]
    fn the_reference_has_every_event_with_every_field() {
        let page = include_str!("../../../docs/reference.md");
        for what in one_of_each() {
            let event = Event { time: String::new(), what };
            let serde_json::Value::Object(fields) = serde_json::to_value(event).unwrap() else {
                panic!("an event is an object");
            };
            let name = fields["event"].as_str().unwrap();
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/reference.md has no row for {name}"));
            for field in fields.keys().filter(|field| !["time", "event"].contains(&field.as_str()))
            {
                assert!(row.contains(&format!("`{field}`")), "{name} lacks the field {field}");
            }
        }
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let stage = StageEvent {
            class: "tcp".to_owned(),
            from: "fair".to_owned(),
            to: "challenge".to_owned(),
            fill_ratio: 0.5,
            headroom_entries: 10,
            others_per_second: -1.5,
            budget_per_second: 20.0,
            demand_per_second: 4000.0,
            share_per_second: Some(0.25),
            sources: None,
        };
        let event = Event { time: "2026-01-02T03:04:05.678Z".to_owned(), what: What::Stage(stage) };
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.starts_with(r#"{"time":"2026-01-02T03:04:05.678Z","event":"stage","class":"#));
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
