//! An event as people read it, in `ctguard events` and in the log.

use crate::events::{StageEvent, What};

pub(crate) fn event_text(what: &What) -> String {
    match what {
        What::Started { interfaces } => format!("guarding {}", interfaces.join(", ")),
        What::Stopped => "stopping".to_owned(),
        What::Stage(stage) => stage_text(stage),
        What::Reclaimed { entries_deleted } => format!(
            "the table is back below its target: {entries_deleted} unreplied entries reclaimed"
        ),
    }
}

fn stage_text(stage: &StageEvent) -> String {
    let StageEvent { class, from, to, fill_ratio, budget_per_second, demand_per_second, .. } =
        stage;
    let share = stage.share_per_second;
    let share =
        share.map(|share| format!(", which is {share:.2}/s per source")).unwrap_or_default();
    let sources = stage.sources.map_or_else(|| "unknown".to_owned(), |sources| sources.to_string());
    format!(
        "{class}: {from} → {to} at {:.1} % fill: {sources} sources ask for {demand_per_second:.0} new \
         flows/s, the table can take {budget_per_second:.0}/s{share}",
        fill_ratio * 100.0,
    )
}
