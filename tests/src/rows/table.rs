//! Rows as a Markdown table, a line for each bar.

use super::{Round, Told};
use crate::{
    report::{Run, ratio},
    summary::{grouped, percent},
};

/// The head of the table.
#[must_use]
pub fn head() -> String {
    "| row | bar | guarded | unguarded | fill | drop |\n| --- | --- | --- | --- | --- | --- |"
        .to_owned()
}

/// The lines of a row, without the last line's end.
#[must_use]
pub fn table(told: &Told) -> String {
    let title = format!("{}: {} ({})", told.row.name, told.row.sentence, grouped(told.table_max));
    let (rounds, bars) = match &told.found {
        Ok(found) => found,
        Err(error) => {
            let reason = format!("{error:#}").replace('|', "/").replace('\n', " ");
            return line(&[&title, "", &format!("**not run**: {reason}"), "", "", ""]);
        }
    };
    let (fill, drop) = (fill(rounds), drop(rounds));
    let lines = bars.iter().enumerate().map(|(index, judged)| {
        let guarded = if judged.held {
            judged.guarded.clone()
        } else {
            format!("**{} MISSED**", judged.guarded)
        };
        let first = |text: &str| if index == 0 { text.to_owned() } else { String::new() };
        line(&[
            &first(&title),
            &judged.bar,
            &guarded,
            &judged.unguarded,
            &first(&fill),
            &first(&drop),
        ])
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The guarded runs, or the others where none were made.
fn shown(rounds: &[Round]) -> impl Iterator<Item = &Run> {
    rounds.iter().filter_map(|round| round.guarded.as_ref().or(round.unguarded.as_ref()))
}

/// The fill of the round in which it rose highest: the peak, then how steady it was.
fn fill(rounds: &[Round]) -> String {
    let highest = shown(rounds).max_by_key(|run| run.fill.peak);
    highest.map_or_else(String::new, fill_of)
}

fn fill_of(run: &Run) -> String {
    let peak = percent(ratio(run.fill.peak, run.table_max));
    match run.fill.second_half {
        Some(spread) => format!(
            "{peak} (mean {}, σ {:.2} %)",
            percent(spread.mean_ratio),
            spread.deviation_ratio * 100.0
        ),
        None => peak,
    }
}

/// Flows dropped for a full table in all rounds, and what the lab lost by itself.
fn drop(rounds: &[Round]) -> String {
    let sum = |of: fn(&Run) -> u64| shown(rounds).map(of).sum::<u64>();
    let dropped = grouped(sum(|run| run.kernel.drop));
    match sum(|run| run.others_lost_in_queue) {
        0 => dropped,
        lost => format!("{dropped} ({} lost in the lab's queue)", grouped(lost)),
    }
}

fn line(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn a_row_that_could_not_run_says_why_in_its_line() {
        let found = Err(anyhow!("no such | flood\nhere"));
        let told = Told { row: &ROWS[0], table_max: 16_384, found };
        assert!(!told.held());
        let text = table(&told);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(
            text.matches('|').count(),
            head().lines().next().unwrap_or("").matches('|').count()
        );
    }
}
