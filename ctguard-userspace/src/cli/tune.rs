//! `ctguard tune`: sets what doctor advises, and takes it back.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use serde::Serialize;

use super::{CliError, Context, Outcome, watch};
use crate::{
    host::Host,
    tune::{self, Change, Max, Proposal, Reverted, Role, Verdict},
};

/// Set connection tracking as `ctguard doctor` advises, or take that back
///
/// Shows what it would do, and does it with --apply. Entries that exist keep the timeouts that they
/// have; the hash is resized without losing one.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard tune                      what would change, and why\n  \
    ctguard tune --for nat-router --apply --persist\n  ctguard tune --revert             as it was before\n  \
    ctguard tune --watch 3d           has it helped? (systemd-run keeps it running)"
)]
#[expect(clippy::struct_excessive_bools, reason = "one field for each switch")]
pub(super) struct TuneArgs {
    /// What the machine does; guessed by whether it forwards and translates
    #[arg(long = "for", value_name = "ROLE")]
    role: Option<Role>,
    /// Entries that the table shall take, or `auto`: an eighth of the memory, never fewer than now
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = parse_max)]
    max: Max,
    /// Show what would change, which is the default
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Set it now
    #[arg(long, conflicts_with = "dry_run")]
    apply: bool,
    /// Have every boot set it, by files of ctguard's own
    #[arg(long, requires = "apply")]
    persist: bool,
    /// Shorten the lives of entries that exist to the new timeouts; this cannot be taken back
    #[arg(long, requires = "apply")]
    existing: bool,
    /// Watch for so long (30m, 12h, 3d) whether it helps: fill, drops and refusals
    #[arg(long, value_name = "TIME", value_parser = parse_span, conflicts_with = "dry_run")]
    watch: Option<Duration>,
    /// Take back what was applied and persisted; with --watch, at its end, if it did not help
    #[arg(long, conflicts_with = "dry_run")]
    revert: bool,
    /// Print JSON (fields are only ever added); with --watch, a document of its own at the end
    #[arg(long)]
    json: bool,
    /// Work on the /proc, /sys and /etc below this directory
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

#[derive(Serialize)]
struct TuneReport<'a> {
    schema_version: u32,
    role: String,
    applied: bool,
    changes: &'a [Change],
    files: Vec<&'a str>,
    /// Entries whose lives were shortened; null where that was not asked for.
    shortened: Option<u64>,
}

fn parse_span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err("give a time, as 30m, 12h or 3d".to_owned()),
    }
}

fn parse_max(text: &str) -> Result<Max, String> {
    match text {
        "auto" => Ok(Max::Auto),
        number => number.parse().map(Max::Entries).map_err(|_| "give a number, or auto".to_owned()),
    }
}

pub(super) fn run(args: &TuneArgs, context: &Context) -> Result<Outcome, CliError> {
    let host = Host::at(&args.root);
    let mut out = io::stdout().lock();
    match args.watch {
        None if args.revert && args.apply => return Err(CliError::ApplyAndRevert),
        None if args.revert => {
            let done = take_back(&host, &mut out)?;
            return Ok(if done { Outcome::Done } else { Outcome::No });
        }
        Some(span) if !args.apply => return watch(args, span, &host, context, &mut out),
        _ => {}
    }
    let proposal = tune::propose(&host, args.role, args.max)?;
    if args.apply {
        let files = if args.persist { &proposal.files[..] } else { &[] };
        tune::apply(&host, &proposal.changes, files).map_err(tune::TuneError::from)?;
    }
    let shortened = if args.existing { Some(tune::shorten_existing(&host)?) } else { None };
    if args.json {
        json(&proposal, args, shortened, &mut out)
    } else {
        text(&proposal, args, shortened, &mut out)
    }
    .map_err(CliError::Output)?;
    match args.watch {
        Some(span) => watch(args, span, &host, context, &mut out),
        None => Ok(Outcome::Done),
    }
}

/// Watches, tells whether it helped, and takes it back if it did not and that was asked for.
fn watch(
    args: &TuneArgs,
    span: Duration,
    host: &Host,
    context: &Context,
    out: &mut impl Write,
) -> Result<Outcome, CliError> {
    let watched = watch::watch(host, span, context, out, !args.json)?;
    let is_useless = watched.verdict == Verdict::DidNotHelp;
    let reverts = is_useless && args.revert;
    let mut taken_back = Vec::new();
    if reverts {
        // Before anything is told: nobody may be there to read it.
        take_back(host, &mut taken_back)?;
    }
    if args.json {
        watch::json(&watched, reverts, out)
    } else {
        watch::text(&watched, out).and_then(|()| out.write_all(&taken_back))
    }
    .map_err(CliError::Output)?;
    Ok(if is_useless { Outcome::No } else { Outcome::Done })
}

/// Whether there was something to take back.
fn take_back(host: &Host, out: &mut impl Write) -> Result<bool, CliError> {
    let done = tune::revert(host).map_err(tune::TuneError::from)?;
    reverted(done.as_deref(), out).map_err(CliError::Output)?;
    Ok(done.is_some())
}

fn files<'p>(proposal: &'p Proposal, args: &TuneArgs) -> Vec<&'p str> {
    if args.persist { proposal.files.iter().map(|file| file.path).collect() } else { Vec::new() }
}

fn name(role: Role) -> String {
    use clap::ValueEnum as _;
    role.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn json(
    proposal: &Proposal,
    args: &TuneArgs,
    shortened: Option<u64>,
    out: &mut impl Write,
) -> io::Result<()> {
    let report = TuneReport {
        schema_version: 1,
        role: name(proposal.role),
        applied: args.apply,
        changes: &proposal.changes,
        files: files(proposal, args),
        shortened,
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)
}

fn text(
    proposal: &Proposal,
    args: &TuneArgs,
    shortened: Option<u64>,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "for a {}:", name(proposal.role))?;
    let changes: Vec<_> = proposal.changes.iter().filter(|change| change.changes()).collect();
    let width = changes.iter().map(|change| change.key.len()).max().unwrap_or(0);
    for change in &changes {
        let Change { key, now, then, why } = change;
        writeln!(out, "  {key:<width$}  {now} → {then}    {why}")?;
    }
    if changes.is_empty() {
        writeln!(out, "  nothing to change")?;
    }
    for file in files(proposal, args) {
        writeln!(out, "  wrote {file}")?;
    }
    if args.apply {
        writeln!(out, "applied; `ctguard tune --revert` takes it back")?;
        match shortened {
            Some(many) => writeln!(out, "shortened the lives of {many} entries"),
            None => writeln!(
                out,
                "entries that exist keep their timeouts until their next packet; --existing \
                 shortens them"
            ),
        }
    } else if changes.is_empty() {
        Ok(())
    } else {
        writeln!(out, "nothing was changed; --apply sets it now, --persist for every boot as well")
    }
}

fn reverted(done: Option<&[Reverted]>, out: &mut impl Write) -> io::Result<()> {
    let Some(done) = done else { return writeln!(out, "there is nothing to take back") };
    for done in done {
        match done {
            Reverted::Set { key, from, to } => writeln!(out, "{key}  {from} → {to}")?,
            Reverted::Left { what, why } => writeln!(out, "{what}  left as it is: {why}")?,
            Reverted::Removed(path) => writeln!(out, "removed {path}")?,
        }
    }
    writeln!(out, "as it was before")
}
