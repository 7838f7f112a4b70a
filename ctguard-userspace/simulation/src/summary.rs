//! The result of a run, for people; programs read the JSON.

use std::fmt;

use super::report::{Expectation, GroupReport, SimulationReport, StageReport, TableReport};

/// JSON has all changes of stages.
const MOST_STAGES: usize = 20;

const NAME_WIDTH: usize = 16;

impl fmt::Display for SimulationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seed, duration_seconds, table, daemon, .. } = self;
        writeln!(f, "{scenario}: {duration_seconds} s, seed {seed}")?;
        let TableReport { max_entries, target_ratio, peak_entries, .. } = table;
        writeln!(
            f,
            "table      peak {peak_entries} of {max_entries} entries ({}), mean {}, deviation {}, target {}",
            percent(Some(table.fill_peak_ratio)),
            percent(Some(table.fill_mean_ratio)),
            percent(Some(table.fill_deviation_ratio)),
            percent(Some(*target_ratio)),
        )?;
        writeln!(
            f,
            "daemon     {} ticks, {} of them because the data path woke it; {} looks at the table",
            daemon.ticks, daemon.wakeups, daemon.looks
        )?;
        if table.replaced_entries > 0 {
            writeln!(f, "kernel     replaced {} entries", table.replaced_entries)?;
        }
        if !daemon.deleted_entries.is_empty() {
            let classes = daemon.deleted_entries.iter();
            let classes: Vec<_> =
                classes.map(|(class, count)| format!("{count} {class}")).collect();
            let active = daemon.deleted_active;
            writeln!(f, "reclaimed  {}; {active} of flows that still sent", classes.join(", "))?;
        }
        for StageReport { seconds, class, from, to } in self.stages.iter().take(MOST_STAGES) {
            writeln!(f, "stage      {class}: {from} → {to} at {seconds:.2} s")?;
        }
        let more = self.stages.len().saturating_sub(MOST_STAGES);
        if more > 0 {
            writeln!(f, "           and {more} more changes")?;
        }
        let width = self.groups.iter().map(|group| group.name.len()).fold(NAME_WIDTH, usize::max);
        writeln!(
            f,
            "\n{:width$} {:>12} {:>9} {:>9} {:>8} {:>8} {:>8} {:>12}  refused by",
            "group", "flows", "at once", "success", "share", "p99 wait", "fairness", "refused"
        )?;
        self.groups.iter().try_for_each(|group| write_group(f, group, width))?;
        if !self.expectations.is_empty() {
            writeln!(f)?;
        }
        self.expectations.iter().try_for_each(|expectation| writeln!(f, "{expectation}"))
    }
}

fn write_group(f: &mut fmt::Formatter<'_>, group: &GroupReport, width: usize) -> fmt::Result {
    let refused = &group.refused_packets;
    let reasons = refused.by_label();
    let named = reasons.iter().filter(|(_, count)| *count > 0).map(|(label, _)| *label);
    writeln!(
        f,
        "{:width$} {:>12} {:>9} {:>9} {:>8} {:>8} {:>8} {:>12}  {}",
        group.name,
        group.flows,
        percent(group.at_once_ratio),
        percent(group.success_ratio),
        percent(group.share_ratio),
        group.delay_p99_milliseconds.map_or_else(|| "-".to_owned(), |wait| format!("{wait} ms")),
        group.fairness_index.map_or_else(|| "-".to_owned(), |index| format!("{index:.3}")),
        refused.total(),
        named.collect::<Vec<_>>().join(", "),
    )
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = if self.met { "as expected" } else { "NOT AS EXPECTED" };
        let of = self.group.as_deref().unwrap_or("table");
        let found = percent(self.found);
        write!(f, "{answer}: {of}: {} {found}, ", self.what)?;
        match (self.least, self.most) {
            (Some(least), _) => write!(f, "at least {least}"),
            (None, Some(most)) => write!(f, "at most {most}"),
            (None, None) => Ok(()),
        }
    }
}

fn percent(ratio: Option<f64>) -> String {
    // Rounded down, so that 100 % means all.
    ratio.map_or_else(
        || "-".to_owned(),
        |ratio| format!("{:.2} %", (ratio * 10_000.0).floor() / 100.0),
    )
}
