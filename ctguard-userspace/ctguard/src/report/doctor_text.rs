//! An audit for people: what is wrong first, what is good to know last.

use std::io::{self, Write};

use textwrap::Options;

use super::doctor::{DoctorReport, TableReport};
use ctguard_audit::doctor::{Finding, Severity};

const COLUMNS: usize = 100;
const MARGIN: &str = "        ";

pub(super) fn write(report: &DoctorReport<'_>, out: &mut impl Write) -> io::Result<()> {
    if let Some(table) = &report.table {
        self::table(table, out)?;
    }
    for finding in wrong(report) {
        writeln!(out)?;
        self::finding(finding, out)?;
    }
    let notes: Vec<_> = notes(report).collect();
    if !notes.is_empty() {
        writeln!(out)?;
    }
    for note in notes {
        paragraph("note", &format!("{}: {}", note.what, note.why), out)?;
        // What `ctguard tune` sets it lists itself.
        if !note.mend.iter().any(|mend| mend.reversible) {
            commands(note, out)?;
        }
    }
    for skipped in report.skipped {
        let text =
            format!("{} was not checked: {}: {}", skipped.check, skipped.place, skipped.reason);
        paragraph("skipped", &text, out)?;
    }
    writeln!(out)?;
    let wrong = wrong(report).count();
    match wrong {
        0 => paragraph("result", "nothing is wrong", out),
        1 => paragraph("result", "1 finding", out),
        many => paragraph("result", &format!("{many} findings"), out),
    }
}

fn wrong<'a>(report: &DoctorReport<'a>) -> impl Iterator<Item = &'a Finding> {
    report.findings.iter().filter(|finding| finding.severity != Severity::Note)
}

fn notes<'a>(report: &DoctorReport<'a>) -> impl Iterator<Item = &'a Finding> {
    report.findings.iter().filter(|finding| finding.severity == Severity::Note)
}

fn table(table: &TableReport, out: &mut impl Write) -> io::Result<()> {
    let fill = match table.fill_ratio {
        Some(fill) => format!("{} of {} entries ({:.1} %)", table.count, table.max, fill * 100.0),
        None => format!("{} entries, no maximum", table.count),
    };
    let memory = match table.memory_bytes {
        Some(bytes) => format!(", of {} MiB of memory", bytes >> 20),
        None => String::new(),
    };
    let mebibytes = table.full_entries_bytes.saturating_add(table.hash_bytes) >> 20;
    let text = format!("{fill}, {} buckets; {mebibytes} MiB when full{memory}", table.buckets);
    paragraph("table", &text, out)?;
    let Some(seconds) = table.flood_seconds_to_full else { return Ok(()) };
    let text = format!(
        "{} new flows a second fill what is left in {seconds:.1} s",
        table.flood_flows_per_second
    );
    paragraph("flood", &text, out)
}

fn finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let severity = match finding.severity {
        Severity::Fault => "FAULT",
        Severity::Warning => "WARNING",
        Severity::Note => "note",
    };
    paragraph(severity, &format!("{} [{}]", finding.what, finding.check), out)?;
    for reading in &finding.read {
        paragraph("  read", &format!("{}: {}", reading.place, reading.value), out)?;
    }
    if !finding.why.is_empty() {
        paragraph("  why", &finding.why, out)?;
    }
    commands(finding, out)
}

/// They are there to be copied, and keep their lines.
fn commands(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let by_hand = if finding.mend.iter().any(|mend| mend.reversible) { "  or" } else { "  run" };
    for mend in &finding.mend {
        let by = if mend.reversible { "  mend" } else { by_hand };
        writeln!(out, "{by:<8}{}", mend.command)?;
    }
    Ok(())
}

fn paragraph(head: &str, text: &str, out: &mut impl Write) -> io::Result<()> {
    let options = Options::new(COLUMNS).initial_indent("").subsequent_indent(MARGIN);
    let text = format!("{head:<8}{text}");
    writeln!(out, "{}", textwrap::fill(&text, options))
}
