//! `ctguard tune`: sets what doctor advises, and reverts it.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use serde::Serialize;

use super::{CliError, Code, Context, watch};
use crate::terminal::{Terminal, write_json};
use ctguard_audit::{
    doctor::Role,
    host::{Assignment, Host},
    tune::{self, Change, Max, Reverted, ServiceTimeout, TuneError, Verdict},
};

/// Set connection tracking as `ctguard doctor` advises, or revert that
///
/// Without --apply, it only shows what it would change. No entry is lost, even if the hash is
/// resized. Existing entries keep their timeouts until their next packet.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard tune                      show what would change, and why\n  \
    ctguard tune --for nat-router --apply --persist\n  ctguard tune --revert             restore the old values\n  \
    ctguard tune --service tcp/5432=12h    rules for connections that may be idle for longer\n  \
    ctguard tune --watch 3d           did the change help? (systemd-run lets you log out meanwhile)"
)]
#[expect(clippy::struct_excessive_bools, reason = "one field for each switch")]
pub(super) struct TuneArgs {
    /// Role of the machine [default: a guess from forwarding and NAT rules]
    #[arg(long = "for", value_name = "ROLE")]
    role: Option<Role>,
    /// Maximum of the table; `auto` allows it an eighth of the memory, and never lowers it
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = parse_max)]
    max: Max,
    /// Only show what would change (the default)
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Change the settings now
    #[arg(long, conflicts_with = "dry_run")]
    apply: bool,
    /// Also write files that apply the settings at every boot
    #[arg(long)]
    persist: bool,
    /// Also lower the timeouts of existing entries; this cannot be reverted
    #[arg(long, requires = "apply")]
    existing: bool,
    /// Watch fill, drops and refusals for this long (30m, 12h, 3d), then say if the change helped
    #[arg(long, value_name = "TIME", value_parser = parse_span, conflicts_with = "dry_run")]
    watch: Option<Duration>,
    /// Restore the old values and remove the files; with --watch, only if the change did not help
    #[arg(long, conflicts_with = "dry_run")]
    revert: bool,
    /// Also print nftables rules that let flows of this service be idle for so long; repeatable
    #[arg(long, value_name = "PROTO/PORT=TIME")]
    service: Vec<ServiceTimeout>,
    /// Print JSON (later versions only add fields); --watch prints its own document when it ends
    #[arg(long)]
    json: bool,
    /// Use the /proc, /sys and /etc below this directory
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

#[derive(Serialize)]
struct TuneReport<'a> {
    schema_version: u32,
    role: String,
    applied: bool,
    changes: &'a [Change],
    /// Files that were or would be written.
    files: Vec<&'a str>,
    /// Lines of other files that override them at boot.
    overridden: &'a [Assignment],
    /// Existing entries whose timeouts were lowered; null without --existing.
    shortened: Option<u64>,
    /// Commands that give services their own timeouts; they are never run.
    service_rules: &'a [String],
    #[serde(skip)]
    is_size_ours: bool,
}

/// What `--revert --json` prints.
#[derive(Serialize)]
struct RevertReport<'a> {
    schema_version: u32,
    reverted: &'a [Reverted],
}

fn parse_span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err("write a time such as 30m, 12h or 3d".to_owned()),
    }
}

fn parse_max(text: &str) -> Result<Max, String> {
    let entries = || text.parse().map(Max::Entries);
    let max = if text == "auto" { Ok(Max::Auto) } else { entries() };
    max.map_err(|_| "write a number, or auto".to_owned())
}

pub(super) fn run(args: &TuneArgs, context: &Context) -> Result<Code, CliError> {
    let host = Host::at(&args.root);
    let mut out = Terminal::stdout();
    match args.watch {
        None if args.revert && args.apply => return Err(CliError::ApplyAndRevert),
        None if args.revert => return revert(&host, args.json, &mut out),
        Some(span) if !args.apply => return watch(args, span, &host, context, &mut out),
        _ => {}
    }
    let proposal = tune::propose(&host, args.role, args.max)?;
    if args.persist && !proposal.is_size_ours {
        return Err(TuneError::NotPersistedHere.into());
    }
    let files = if args.persist { &proposal.files[..] } else { &[] };
    if args.apply {
        tune::apply(&host, &proposal.changes, files)?;
    }
    let shortened = if args.existing { Some(tune::lower_existing_timeouts(&host)?) } else { None };
    let overridden = if args.apply && args.persist {
        tune::overridden(&host, &proposal.changes)?
    } else {
        Vec::new()
    };
    let mut services = args.service.clone();
    if services.is_empty() {
        // Without a list of its sockets nothing is known to be wrong.
        services = tune::own_services(&host).unwrap_or_default();
    }
    let service_rules = tune::service_rules(&services);
    let report = TuneReport {
        schema_version: 1,
        role: name(proposal.role),
        applied: args.apply,
        changes: &proposal.changes,
        files: files.iter().map(|file| file.path).collect(),
        overridden: &overridden,
        shortened,
        service_rules: &service_rules,
        is_size_ours: proposal.is_size_ours,
    };
    if args.json { write_json(&mut out, &report) } else { text(&report, &mut out) }
        .map_err(CliError::Output)?;
    match args.watch {
        Some(span) => watch(args, span, &host, context, &mut out),
        None => Ok(Code::Done),
    }
}

/// Reverts what was applied.
fn revert(host: &Host, is_json: bool, out: &mut impl Write) -> Result<Code, CliError> {
    let done = tune::revert(host)?;
    let list = done.as_deref();
    if is_json {
        let reverted = list.unwrap_or_default();
        write_json(out, &RevertReport { schema_version: 1, reverted })
    } else {
        reverted(list, out)
    }
    .map_err(CliError::Output)?;
    let is_whole = done.is_some_and(|done| !done.iter().any(is_left));
    Ok(if is_whole { Code::Done } else { Code::No })
}

/// Watches, says whether it helped, and with --revert reverts what did not.
fn watch(
    args: &TuneArgs,
    span: Duration,
    host: &Host,
    context: &Context,
    out: &mut impl Write,
) -> Result<Code, CliError> {
    let watch::Ended { watched, cut_short, is_only_change } =
        watch::watch(host, span, context, out, !args.json)?;
    let is_useless = watched.verdict == Verdict::DidNotHelp;
    // Comes before any output, which may fail.
    let taken_back = if is_useless && args.revert && !cut_short && is_only_change {
        tune::revert(host)?
    } else {
        None
    };
    let taken_back = taken_back.as_deref();
    if args.json {
        let (watched, reverted) = (&watched, taken_back.unwrap_or_default());
        write_json(out, &watch::WatchReport { schema_version: 1, watched, reverted })
    } else {
        watch::text(&watched, out).and_then(|()| match taken_back {
            Some(list) => reverted(Some(list), out),
            None if is_useless && args.revert => writeln!(
                out,
                "not reverted: {}; `ctguard tune --revert` reverts everything",
                if cut_short { "the watch was interrupted" } else { "there were earlier changes" }
            ),
            None => Ok(()),
        })
    }
    .map_err(CliError::Output)?;
    let is_good =
        matches!(watched.verdict, Verdict::Helped | Verdict::NotEnough | Verdict::Undecided);
    Ok(if is_good { Code::Done } else { Code::No })
}

const fn is_left(done: &Reverted) -> bool {
    matches!(done, Reverted::Left { .. })
}

fn name(role: Role) -> String {
    use clap::ValueEnum as _;
    role.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn text(report: &TuneReport<'_>, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "settings for the role {}:", report.role)?;
    let changes: Vec<_> = report.changes.iter().filter(|change| change.changes()).collect();
    let width = changes.iter().map(|change| change.key.len()).max().unwrap_or(0);
    for change in &changes {
        let Change { key, now, then, why } = change;
        writeln!(out, "  {key:<width$}  {now} → {then}    {why}")?;
    }
    if changes.is_empty() {
        writeln!(out, "  all settings fit")?;
    }
    if !report.is_size_ours {
        writeln!(out, "  the table's size can be set only in the first network namespace")?;
    }
    for path in &report.files {
        writeln!(out, "  {} {path}", if report.applied { "wrote" } else { "would write" })?;
    }
    for Assignment { file, line, key, value } in report.overridden {
        writeln!(out, "  {file}:{line} sets {key} to {value} at boot and wins: change it there")?;
    }
    let is_idle = changes.is_empty() && report.files.is_empty();
    if !is_idle {
        let done = if report.applied {
            "applied; `ctguard tune --revert` restores the old values"
        } else {
            "nothing was changed; --apply changes it now, --persist also at every boot"
        };
        writeln!(out, "{done}")?;
    }
    if !report.service_rules.is_empty() {
        writeln!(out, "rules that give a service its own timeout; add them to your ruleset:")?;
        report.service_rules.iter().try_for_each(|command| writeln!(out, "  {command}"))?;
    }
    match report.shortened {
        Some(many) => writeln!(out, "lowered the timeouts of {many} existing entries"),
        None if changes.is_empty() || !report.applied => Ok(()),
        None => writeln!(
            out,
            "existing entries keep their timeouts until their next packet; --existing lowers them now"
        ),
    }
}

fn reverted(done: Option<&[Reverted]>, out: &mut impl Write) -> io::Result<()> {
    let Some(done) = done else { return writeln!(out, "there is nothing to revert") };
    for done in done {
        match done {
            Reverted::Set { key, from, to } => writeln!(out, "{key}  {from} → {to}")?,
            Reverted::Left { what, why, .. } => writeln!(out, "{what}  not reverted: {why}")?,
            Reverted::Removed { path } => writeln!(out, "removed {path}")?,
        }
    }
    match done.iter().filter(|done| is_left(done)).count() {
        0 => writeln!(out, "the old values are restored"),
        left => writeln!(out, "the old values are restored, except for {left}"),
    }
}
