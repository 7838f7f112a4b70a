//! An event as people read it, in `ctguard events` and in the log.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    events::{PartEvent, Relief, StageEvent, What},
    holders::{PartReport, SourceHolder},
};

pub(crate) fn event_text(what: &What) -> String {
    match what {
        What::Started { interfaces } => format!("guarding {}", interfaces.join(", ")),
        What::Stopped => "stopping".to_owned(),
        What::Stage(stage) => stage_text(stage),
        What::Reclaimed(relief) => relief_text(relief),
        What::Part(part) => part_text(part),
        What::InterfaceGone { interface } => {
            format!("{interface} is gone; waiting for it to come back")
        }
        What::InterfaceBack { interface } => format!("guarding {interface} again"),
    }
}

fn stage_text(stage: &StageEvent) -> String {
    let StageEvent { class, from, to, fill_ratio, budget_per_second, demand_per_second, .. } =
        stage;
    let share = match stage.share_per_second {
        None => String::new(),
        Some(share) if share < 0.01 => ", too little for a share of each".to_owned(),
        Some(share) => format!(", a source's share is {share:.2}/s"),
    };
    // An empty sum is -0.
    let demand_per_second = demand_per_second.abs();
    let sources = stage.sources.map_or_else(|| "unknown".to_owned(), |sources| sources.to_string());
    format!(
        "{class}: {from} → {to} at {:.1} % fill: {sources} sources ask for {demand_per_second:.0} new \
         flows/s, the table can take {budget_per_second:.0}/s{share}",
        fill_ratio * 100.0,
    )
}

fn relief_text(relief: &Relief) -> String {
    format!("reclaimed {}{}", reclaimed_text(&relief.by_class), most_text(&relief.sources))
}

fn part_text(part: &PartEvent) -> String {
    match part.parts {
        Some(parts) => format!(
            "{} entries are more than fit below the target: each source may hold {}{}",
            part.entries,
            may_hold(parts),
            most_text(&part.sources)
        ),
        None => "all entries fit below the target again: no source is held to a part".to_owned(),
    }
}

/// `120 unanswered and 4 finished entries`.
pub(super) fn reclaimed_text(by_class: &BTreeMap<String, u64>) -> String {
    let mut classes: Vec<_> = by_class.iter().collect();
    classes.sort_by_key(|(_, entries)| Reverse(**entries));
    let classes: Vec<_> =
        classes.iter().map(|(class, entries)| format!("{entries} {class}")).collect();
    format!("{} entries", classes.join(", "))
}

pub(super) fn may_hold(parts: PartReport) -> String {
    let part = |most: Option<u32>| most.map_or("any number of".to_owned(), |most| most.to_string());
    format!(
        "{} connections and {} other entries",
        part(parts.connections),
        part(parts.other_entries)
    )
}

fn most_text(sources: &[SourceHolder]) -> String {
    let sources: Vec<_> = sources.iter().take(3).map(holder_text).collect();
    if sources.is_empty() { String::new() } else { format!("; most hold {}", sources.join(", ")) }
}

pub(super) fn holder_text(holder: &SourceHolder) -> String {
    let SourceHolder { source, states, is_above_part, .. } = holder;
    let states: Vec<_> =
        states.iter().map(|(state, entries)| format!("{entries} {state}")).collect();
    let above = if *is_above_part { ", above its part" } else { "" };
    format!("{source} ({}{above})", states.join(", "))
}
