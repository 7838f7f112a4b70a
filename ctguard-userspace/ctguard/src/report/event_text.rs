//! An event as people read it, in `ctguard events` and in the log.

use crate::events::{StageEvent, What};

pub(crate) fn event_text(what: &What) -> String {
    match what {
        What::Started { interfaces } => format!("guarding {}", interfaces.join(", ")),
        What::Stopped => "stopping".to_owned(),
        What::Stage(stage) => stage_text(stage),
        What::Relieved { entries_deleted } => format!(
            "the table is at its target again: {entries_deleted} entries deleted that nobody answered"
        ),
    }
}

fn stage_text(stage: &StageEvent) -> String {
    let StageEvent { class, from, to, fill_ratio, budget_per_second, demand_per_second, .. } =
        stage;
    let share = stage.share_per_second;
    let share = share.map(|share| format!(", {share:.2}/s for each")).unwrap_or_default();
    let sources = stage.sources.map_or_else(|| "unknown".to_owned(), |sources| sources.to_string());
    format!(
        "stage of {class}: {from} → {to} at a fill of {:.1} %: {sources} sources ask for \
         {demand_per_second:.0}/s, the table can take {budget_per_second:.0}/s{share}",
        fill_ratio * 100.0,
    )
}
