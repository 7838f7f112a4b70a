//! The result of `ctguard doctor`, and its text: what is wrong first, what is good to know last.

use std::io::{self, Write};

use serde::Serialize;
use textwrap::{Options, WordSplitter};

use super::SCHEMA_VERSION;
use crate::{plural::entries, terminal::visible};
use ctguard_audit::doctor::{Audit, Finding, Severity, Summary};

const COLUMNS: usize = 100;
const MARGIN: &str = "        ";

/// What `ctguard doctor --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct DoctorReport<'a> {
    schema_version: u32,
    /// There are only notes.
    clean: bool,
    #[serde(flatten)]
    audit: &'a Audit,
}

impl<'a> DoctorReport<'a> {
    pub(crate) fn new(audit: &'a Audit) -> Self {
        Self { schema_version: SCHEMA_VERSION, clean: audit.is_clean(), audit }
    }
}

pub(crate) fn write_doctor(audit: &Audit, out: &mut impl Write) -> io::Result<()> {
    let is_note = |finding: &&Finding| finding.severity == Severity::Note;
    let (notes, wrong): (Vec<_>, Vec<_>) = audit.findings.iter().partition(is_note);
    if let Some(table) = &audit.table {
        self::table(table, out)?;
    }
    for finding in &wrong {
        writeln!(out)?;
        self::finding(finding, out)?;
    }
    if !notes.is_empty() {
        writeln!(out)?;
    }
    for note in notes {
        paragraph("note", &format!("{}: {}", note.what, note.why), out)?;
        // `ctguard tune` lists what it sets by itself.
        if !note.mend.iter().any(|mend| mend.reversible) {
            commands(note, out)?;
        }
    }
    for skipped in &audit.skipped {
        let text = format!("{}: cannot read {}: {}", skipped.check, skipped.place, skipped.reason);
        paragraph("skipped", &text, out)?;
    }
    writeln!(out)?;
    let result = match wrong.len() {
        0 => "nothing is wrong".to_owned(),
        1 => "1 problem found".to_owned(),
        many => format!("{many} problems found"),
    };
    paragraph("result", &result, out)
}

fn table(table: &Summary, out: &mut impl Write) -> io::Result<()> {
    let fill = match table.fill_ratio {
        Some(fill) => format!(
            "{} of {} entries ({:.1} %)",
            table.numbers.count,
            table.numbers.max,
            fill * 100.0
        ),
        None => format!("{}, no maximum", entries(table.numbers.count)),
    };
    let memory = table.memory_bytes.map(|bytes| format!(" of the machine's {} MiB", bytes >> 20));
    let memory = memory.unwrap_or_default();
    let mebibytes = table.full_entries_bytes.saturating_add(table.hash_bytes) >> 20;
    let text = format!(
        "{fill}, {} buckets; a full table takes {mebibytes} MiB{memory}",
        table.numbers.buckets
    );
    paragraph("table", &text, out)?;
    let Some(seconds) = table.flood_seconds_to_full else { return Ok(()) };
    let text = format!(
        "a flood of {} new flows a second would fill the rest in {seconds:.1} s",
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

/// Commands keep to one line each, so that they can be copied.
fn commands(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let by_hand = if finding.mend.iter().any(|mend| mend.reversible) { "  or" } else { "  run" };
    for mend in &finding.mend {
        let by = if mend.reversible { "  fix" } else { by_hand };
        writeln!(out, "{by:<8}{}", mend.command)?;
    }
    Ok(())
}

/// Control characters are escaped before lines are broken: a newline from a file must not start one.
fn paragraph(head: &str, text: &str, out: &mut impl Write) -> io::Result<()> {
    let text = format!("{head:<8}{text}");
    let options = Options::new(COLUMNS)
        .subsequent_indent(MARGIN)
        // A check's name and a command's option stay whole.
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(&visible(&text), options).iter().try_for_each(|line| writeln!(out, "{line}"))
}
