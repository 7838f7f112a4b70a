//! `ctguard allow` and `ctguard deny`: prefixes, for a while or for good.

use std::{collections::BTreeSet, io::Write as _, time::Duration};

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::{
    CliError, Code, Context, in_use::read_configuration_in_use, operator, record::record_of_list,
};
use crate::{
    feeds::feeds_status,
    report::ListReport,
    terminal::{Terminal, complain, write_json},
};
use ctguard_kernel::{
    lock,
    maps::{Entry, FeedListed, GuardMaps, ListError, ListKind},
};
use ctguard_settings::{parse_listed, parse_prefix};

/// What to do with a list.
#[derive(Debug, Subcommand)]
pub(super) enum ListAction {
    /// Add a prefix, or change when its entry expires
    Add(AddArgs),
    /// Remove a prefix; exit status 1 if it is not in the list
    Del {
        /// Prefix or address, as it was added
        #[arg(value_name = "CIDR")]
        prefix: String,
    },
    /// Show the list, or only entries that overlap a prefix; exit status 1 if none does
    List {
        /// Only entries that contain this prefix or lie inside it
        #[arg(value_name = "CIDR")]
        prefix: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// IPv4 or IPv6 address or prefix
    #[arg(value_name = "CIDR")]
    pub(super) prefix: String,
    /// How long the entry lasts, such as 10m or 2h; without it, the entry never expires
    #[arg(long = "for", value_name = "TIME")]
    pub(super) span: Option<String>,
    /// On the deny list: add it even if you are logged in from there over SSH
    #[arg(long)]
    pub(super) force: bool,
}

pub(super) fn run(
    kind: ListKind,
    action: &ListAction,
    context: &Context,
) -> Result<Code, CliError> {
    match action {
        ListAction::Add(args) => say(&add(kind, args, context)?),
        ListAction::Del { prefix } => delete(kind, prefix, context),
        ListAction::List { prefix, json } => list(kind, prefix.as_deref(), *json, context),
    }
}

/// Adds a prefix, for a while or for good, and says what was done.
pub(super) fn add(kind: ListKind, args: &AddArgs, context: &Context) -> Result<String, CliError> {
    let (text, span) = (&args.prefix[..], args.span.as_deref());
    let prefix = parse_listed(text)?;
    let is_cutting = kind == ListKind::Deny && !args.force;
    let clients = if is_cutting { operator::clients() } else { BTreeSet::new() };
    if let Some(client) = clients.into_iter().find(|client| prefix.contains(client)) {
        return Err(CliError::DenyOperator { client, prefix });
    }
    let lasting = span.map(|text| parse_span("--for", text)).transpose()?;
    let mut maps = context.maps()?;
    let expires_at = lasting.map_or(Ok(Some(0)), |span| end_of(span, &maps, context))?;
    let expires_at = expires_at.ok_or_else(|| {
        let text = span.unwrap_or_default().to_owned();
        CliError::Span { of: "--for", text, problem: "too long".to_owned() }
    })?;
    let writing = lock::for_writing(context.pins.path())?;
    maps.settings_writer(writing).add_to_list(kind, Entry { prefix, expires_at })?;
    let span = lasting.map(|span| format!(" for {}", humantime::format_duration(span)));
    let span = span.unwrap_or_default();
    record_of_list(format!("{} + {prefix}{span}", kind.name()));
    let is_cut = text.parse().is_ok_and(|given: IpNet| given != prefix);
    let cut = is_cut.then(|| format!(", the prefix that {text} is in"));
    let verb = if kind == ListKind::Allow { "allowing" } else { "denying" };
    let denied = if kind == ListKind::Allow { denying(prefix, &maps, context)? } else { None };
    let denied = denied.map(|denied| {
        format!("; but the deny list has {denied} and goes first: ctguard deny del {denied}")
    });
    let allowed = if kind == ListKind::Deny { allowed_in(prefix, &maps, context)? } else { None };
    let more = [cut, denied, allowed].into_iter().flatten().collect::<String>();
    Ok(format!("{verb} {prefix}{span}{more}"))
}

/// The operator's entry that denies all of a prefix.
fn denying(prefix: IpNet, maps: &GuardMaps, context: &Context) -> Result<Option<IpNet>, CliError> {
    let (now, _) = context.now(maps)?;
    let entries = maps.lists.entries(ListKind::Deny)?;
    let in_force = entries.iter().filter(|entry| entry.is_live(now.0));
    Ok(in_force.map(|entry| entry.prefix).find(|denied| denied.contains(&prefix)))
}

/// A note on the operator's allowed prefixes that lie in a denied one.
fn allowed_in(
    denied: IpNet,
    maps: &GuardMaps,
    context: &Context,
) -> Result<Option<String>, CliError> {
    let (now, _) = context.now(maps)?;
    let entries = maps.lists.entries(ListKind::Allow)?;
    let mut allowed =
        entries.iter().filter(|entry| entry.is_live(now.0) && denied.contains(&entry.prefix));
    let Some(first) = allowed.next() else { return Ok(None) };
    let (one, more) = (first.prefix, allowed.count());
    let what = if more == 0 { one.to_string() } else { format!("{one} and {more} more in it") };
    Ok(Some(format!(", although the allow list has {what}: the deny list goes first")))
}

fn delete(kind: ListKind, text: &str, context: &Context) -> Result<Code, CliError> {
    let prefix = parse_prefix(text)?;
    let mut maps = context.maps()?;
    let writing = lock::for_writing(context.pins.path())?;
    if !maps.settings_writer(writing).remove_from_list(kind, prefix)? {
        let of_feeds = of_feeds(kind, &maps)?;
        let listed = of_feeds.iter().find(|listed| listed.prefix == prefix);
        let feeds = listed.map(|listed| feeds_status().names(listed.feeds).join(", "));
        let problem = match feeds {
            None => format!("{prefix} is not in the list"),
            Some(feeds) if kind == ListKind::Deny => format!(
                "{prefix} is listed by feed {feeds}; remove it there, or allow it: what is allowed \
                 is denied by no feed"
            ),
            Some(feeds) => format!(
                "{prefix} is listed by feed {feeds}; remove it there, or deny it: what the operator \
                 denies is allowed by no feed"
            ),
        };
        complain(format_args!("{problem}"));
        return Ok(Code::No);
    }
    record_of_list(format!("{} - {prefix}", kind.name()));
    // Whether a file lists it is only for information.
    if let Ok(config) = read_configuration_in_use(context)
        && let Some(origin) = config.list(kind).get(&prefix)
    {
        complain(format_args!("warning: {origin} lists it, and the next reload will add it again"));
    }
    say(&format!("removed {prefix}"))
}

fn list(
    kind: ListKind,
    text: Option<&str>,
    json: bool,
    context: &Context,
) -> Result<Code, CliError> {
    let wanted = text.map(parse_prefix).transpose()?;
    let maps = context.maps()?;
    let (now, per_second) = context.now(&maps)?;
    let is_wanted = |prefix: &IpNet| {
        wanted.is_none_or(|wanted| prefix.contains(&wanted) || wanted.contains(prefix))
    };
    let mut entries = maps.lists.entries(kind)?;
    entries.retain(|entry| is_wanted(&entry.prefix));
    let mut of_feeds = of_feeds(kind, &maps)?;
    of_feeds.retain(|listed| is_wanted(&listed.prefix));
    let report = ListReport::new(&entries, (&of_feeds, &feeds_status()), now.0, per_second);
    let mut out = Terminal::stdout();
    if json { write_json(&mut out, &report) } else { report.write_text(&mut out) }
        .map_err(CliError::Output)?;
    Ok(if wanted.is_some() && report.is_empty() { Code::No } else { Code::Done })
}

/// What feeds list.
fn of_feeds(kind: ListKind, maps: &GuardMaps) -> Result<Vec<FeedListed>, CliError> {
    Ok(maps.feeds.entries(kind).map_err(ListError::from)?)
}

fn end_of(span: Duration, maps: &GuardMaps, context: &Context) -> Result<Option<u64>, CliError> {
    let (now, per_second) = context.now(maps)?;
    let jiffies = span.as_nanos() * u128::from(per_second) / 1_000_000_000;
    Ok(u64::try_from(jiffies).ok().and_then(|jiffies| now.0.checked_add(jiffies)))
}

pub(super) fn parse_span(of: &'static str, text: &str) -> Result<Duration, CliError> {
    let error = |problem| CliError::Span { of, text: text.to_owned(), problem };
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(error("it must not be zero".to_owned())),
        Ok(span) => Ok(span),
        Err(humantime::DurationError::NumberOverflow) => Err(error("too long".to_owned())),
        Err(_) => Err(error("not a time".to_owned())),
    }
}

fn say(text: &str) -> Result<Code, CliError> {
    writeln!(Terminal::stdout(), "{text}").map_err(CliError::Output)?;
    Ok(Code::Done)
}
