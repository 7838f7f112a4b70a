//! An event as people read it, in `ctguard events` and in the log.

use std::{cmp::Reverse, collections::BTreeMap};

use ctguard_control::tuning::TUNING;
use ctguard_layout::Stage;

use super::MOST_UNREADABLE;
use crate::{
    events::{PartEvent, Relief, StageEvent, What},
    holders::{PartReport, SourceHolder},
    plural::prefixes,
};

pub(crate) fn event_text(what: &What) -> String {
    match what {
        What::Started { interfaces } if interfaces.is_empty() => "guarding nothing yet".to_owned(),
        What::Started { interfaces } => format!("guarding {}", interfaces.join(", ")),
        What::Stopped => "stopping".to_owned(),
        What::Replaced { former_layout, layout } => {
            let former = if former_layout == layout {
                "a guard that had lost some of its pins with a new one".to_owned()
            } else {
                format!("a guard of map layout {former_layout} with one of layout {layout}")
            };
            format!(
                "replaced {former}, without a gap; lost are a pause, counters, and settings and list \
                 entries that were neither configured nor saved"
            )
        }
        What::Reloaded { changes } if changes.is_empty() => {
            "configuration read again; nothing changes".to_owned()
        }
        What::Reloaded { changes } => format!("configuration read again: {}", changes.join(", ")),
        What::Changed { changes } => format!("changed by command: {}", changes.join(", ")),
        What::ReloadRefused { error } => {
            format!("configuration not used, and what runs stays: {error}")
        }
        What::Paused { until } => format!("paused until {until}: nothing is dropped"),
        What::PauseEnded { dry_run: true } => "the pause is over; the dry run goes on".to_owned(),
        What::PauseEnded { dry_run: false } => "the pause is over; limits are in force".to_owned(),
        What::Stage(stage) => stage_text(stage),
        What::Reclaimed(relief) => relief_text(relief),
        What::Part(part) => part_text(part),
        What::Overload { source, seconds: 0 } => {
            format!("{source} has held more than its part for long: denied")
        }
        What::Overload { source, seconds } => {
            format!("{source} has held more than its part for long: denied for {seconds} s")
        }
        What::InterfaceGone { interface } => {
            format!("{interface} is gone; waiting for it to come back")
        }
        What::InterfaceBack { interface } => format!("guarding {interface} again"),
        What::InterfaceAwaited { interfaces, existing } => awaited_text(interfaces, existing),
        What::InterfaceGuarded { interface, device: None } => {
            format!("{interface} is there; guarding it")
        }
        What::InterfaceGuarded { interface, device: Some(device) } => {
            format!("{interface} is there; it is guarded at {device}")
        }
        What::InterfaceRefused { interface, error } => {
            format!("{interface} is there and cannot be guarded: {error}")
        }
        What::FeedFailed { feed, error } => {
            format!("feed {feed}: {error}; what it listed before stays")
        }
        What::FeedReadAgain { feed, prefixes: number } => {
            format!("feed {feed} can be read again; it lists {}", prefixes(*number))
        }
        What::FeedEmptied { feed, before } => {
            format!("feed {feed} lists nothing any more; it had {} before", prefixes(*before))
        }
        What::HookFailed { incident, error } => {
            format!("the hook for incident {incident} failed: {error}")
        }
        What::Unconfined { error } => {
            format!("the daemon is not fully confined: {error}")
        }
        What::Unreadable { share_ratio } if *share_ratio > MOST_UNREADABLE => {
            unreadable_text(*share_ratio)
        }
        What::Unreadable { .. } => "frames can be read again".to_owned(),
    }
}

/// A name may be mistyped, so it says which there are.
fn awaited_text(interfaces: &[String], existing: &[String]) -> String {
    const SAID: usize = 20;
    let it = if interfaces.len() == 1 { "it when it appears" } else { "each when it appears" };
    let said = existing.iter().take(SAID).map(String::as_str).collect::<Vec<_>>().join(", ");
    let said = match existing.len().saturating_sub(SAID) {
        _ if said.is_empty() => "there are none".to_owned(),
        0 => format!("there are: {said}"),
        more => format!("there are: {said} and {more} more"),
    };
    format!("no interface is called {}; guarding {it}; {said}", interfaces.join(" or "))
}

pub(super) fn unreadable_text(share: f64) -> String {
    format!(
        "{:.1} % of all frames pass unjudged, because their headers cannot be read: a flood of invalid \
         frames, or a driver that gives XDP too little of large ones (try a smaller MTU, or --mode generic)",
        share * 100.0
    )
}

fn stage_text(stage: &StageEvent) -> String {
    let StageEvent { class, from, to, fill_ratio, .. } = stage;
    format!("{class}: {from} → {to} at {:.1} % fill: {}", fill_ratio * 100.0, cause_text(stage))
}

/// Until demands are known, only the rate of all classes together is.
pub(crate) fn cause_text(stage: &StageEvent) -> String {
    let (demand, budget) = (stage.demand_per_second, stage.budget_per_second);
    match (stage.sources, stage.share_per_second) {
        (None, _) if stage.to == Stage::Challenge.name() => {
            format!("new flows of all classes, {demand:.0}/s, have spent what strangers may open")
        }
        (None, _) => format!(
            "at {}, the room below the target lasts for less than {} s",
            growth_text(demand, stage.others_per_second),
            TUNING.pressure_horizon.as_secs()
        ),
        (Some(sources), Some(share)) => format!(
            "{} for {demand:.0} new flows/s, and {share:.2}/s is left for each \
             (the table can take {budget:.0}/s from all tiers)",
            ask_text(sources)
        ),
        (Some(sources), None) => format!(
            "{} for {demand:.0} new flows/s; the table can take {budget:.0}/s \
             from all tiers",
            ask_text(sources)
        ),
    }
}

fn ask_text(sources: usize) -> String {
    match sources {
        1 => "1 stranger asks".to_owned(),
        sources => format!("{sources} strangers ask"),
    }
}

/// What fills the table, by the guard and by what it does not judge.
fn growth_text(demand: f64, others: f64) -> String {
    if others < 0.5 {
        format!("{demand:.0} new flows/s of all classes")
    } else {
        format!("{demand:.0} new flows/s through the guard and {others:.0}/s from elsewhere")
    }
}

fn relief_text(relief: &Relief) -> String {
    format!("reclaimed {}{}", reclaimed_text(&relief.by_class), most_text(&relief.sources))
}

fn part_text(part: &PartEvent) -> String {
    match part.parts {
        Some(parts) => format!(
            "the table's {} entries do not fit below the target, so each source may hold {}{}",
            part.entries,
            may_hold(parts),
            most_text(&part.sources)
        ),
        None => {
            "all entries fit below the target again, so each source may hold any number".to_owned()
        }
    }
}

/// `120 unanswered and 4 finished entries`.
pub(super) fn reclaimed_text(by_class: &BTreeMap<String, u64>) -> String {
    let mut classes: Vec<_> = by_class.iter().collect();
    classes.sort_by_key(|(_, entries)| Reverse(**entries));
    let classes: Vec<_> =
        classes.iter().map(|(class, entries)| format!("{entries} {class}")).collect();
    // "1 unanswered and 1 finished entries" are several.
    let noun = if by_class.values().sum::<u64>() == 1 { "entry" } else { "entries" };
    format!("{} {noun}", classes.join(", "))
}

pub(super) fn may_hold(parts: PartReport) -> String {
    let part = |most: Option<u32>| most.map_or("any number of".to_owned(), |most| most.to_string());
    let connections = match parts.connections_before {
        Some(before) => {
            format!("{} connections ({before} if it was there before)", part(parts.connections))
        }
        None => format!("{} connections", part(parts.connections)),
    };
    format!("{connections} and {} other entries", part(parts.other_entries))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_interface_has_is_told_with_those_that_there_are() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            awaited_text(&names(&["ethO"]), &names(&["eth0", "eth1"])),
            "no interface is called ethO; guarding it when it appears; there are: eth0, eth1"
        );
        assert_eq!(
            awaited_text(&names(&["a0", "b0"]), &[]),
            "no interface is called a0 or b0; guarding each when it appears; there are none"
        );
        let many: Vec<_> = (0..30).map(|number| format!("veth{number}")).collect();
        assert!(awaited_text(&names(&["a0"]), &many).ends_with("veth19 and 10 more"));
    }

    #[test]
    fn a_part_says_what_those_that_were_there_before_may_hold() {
        let parts =
            PartReport { connections: Some(4), connections_before: Some(28), other_entries: None };
        assert_eq!(
            may_hold(parts),
            "4 connections (28 if it was there before) and any number of other entries"
        );
        let part = PartEvent { parts: Some(parts), entries: 9000, sources: Vec::new() };
        assert_eq!(
            part_text(&part),
            "the table's 9000 entries do not fit below the target, so each source may hold 4 \
             connections (28 if it was there before) and any number of other entries"
        );
    }

    #[test]
    fn a_stage_that_begins_before_sources_are_known_says_how_long_the_room_lasts() {
        assert_eq!(
            stage_text(&event("calm", "fair", None, None)),
            "tcp: calm → fair at 9.2 % fill: at 1314 new flows/s of all classes, the room below the \
             target lasts for less than 10 s"
        );
        assert_eq!(
            stage_text(&event("fair", "challenge", None, None)),
            "tcp: fair → challenge at 9.2 % fill: new flows of all classes, 1314/s, have spent what \
             strangers may open"
        );
    }

    #[test]
    fn a_stage_that_begins_for_what_others_open_says_so() {
        let others = StageEvent {
            demand_per_second: 0.0,
            others_per_second: 3200.4,
            ..event("calm", "fair", None, None)
        };
        assert_eq!(
            cause_text(&others),
            "at 0 new flows/s through the guard and 3200/s from elsewhere, the room below the target \
             lasts for less than 10 s"
        );
    }

    #[test]
    fn what_is_left_for_a_stranger_is_not_taken_for_its_part_of_the_whole() {
        assert_eq!(
            stage_text(&event("fair", "challenge", Some(2507), Some(0.36))),
            "tcp: fair → challenge at 9.2 % fill: 2507 strangers ask for 1314 new flows/s, and 0.36/s \
             is left for each (the table can take 2433/s from all tiers)"
        );
        assert_eq!(
            stage_text(&event("challenge", "fair", Some(20), None)),
            "tcp: challenge → fair at 9.2 % fill: 20 strangers ask for 1314 new flows/s; the table can \
             take 2433/s from all tiers"
        );
    }

    fn event(from: &str, to: &str, sources: Option<usize>, share: Option<f64>) -> StageEvent {
        StageEvent {
            class: "tcp".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            fill_ratio: 0.092,
            headroom_entries: 1000,
            others_per_second: 0.0,
            budget_per_second: 2433.0,
            demand_per_second: 1314.0,
            share_per_second: share,
            sources,
        }
    }
}
