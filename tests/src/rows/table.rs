//! Rows as a Markdown table, a line for each bar.

use super::{Told, run::fill};
use crate::summary::grouped;

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
    let (run, bars) = match &told.found {
        Ok(found) => found,
        Err(error) => {
            let reason = format!("{error:#}").replace('|', "/").replace('\n', " ");
            return line(&[&title, "", &format!("**not run**: {reason}"), "", "", ""]);
        }
    };
    let lost = match run.others_lost_in_queue {
        0 => String::new(),
        some => format!(" ({} lost in the lab's queue)", grouped(some)),
    };
    let (fill, drop) = (fill(run), grouped(run.kernel.drop) + &lost);
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
