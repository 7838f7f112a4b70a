//! `ctguard allow` and `ctguard deny`: prefixes, for a while or for good.

use std::{io::Write as _, net::IpAddr, time::Duration};

use clap::{Args, Subcommand};
use ctguard_layout::programs;
use ipnet::IpNet;
use thiserror::Error;

use super::{CliError, Code, Context};
use crate::{
    report::ListReport,
    terminal::{Terminal, complain, write_json},
};
use ctguard_kernel::{
    bpf::KernelClock,
    lock,
    maps::{Entry, GuardMaps, ListKind},
};

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
    prefix: String,
    /// How long the entry lasts, such as 10m or 2h; without it, the entry never expires
    #[arg(long = "for", value_name = "TIME")]
    span: Option<String>,
}

/// Why a prefix cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum PrefixError {
    #[error("{text} is not an IPv4 or IPv6 prefix (write 192.0.2.0/24 or 2001:db8::/48)")]
    Syntax { text: String },
    #[error(
        "{text} is everybody; to let everybody in, ctguard set dry-run=on; to let nobody in, use a \
         firewall"
    )]
    Everybody { text: String },
}

pub(super) fn run(
    kind: ListKind,
    action: &ListAction,
    context: &Context,
) -> Result<Code, CliError> {
    match action {
        ListAction::Add(args) => add(kind, args, context),
        ListAction::Del { prefix } => delete(kind, prefix, context),
        ListAction::List { prefix, json } => list(kind, prefix.as_deref(), *json, context),
    }
}

fn add(kind: ListKind, args: &AddArgs, context: &Context) -> Result<Code, CliError> {
    let prefix = parse(&args.prefix)?;
    if prefix.prefix_len() == 0 {
        return Err(PrefixError::Everybody { text: args.prefix.clone() }.into());
    }
    let span = args.span.as_deref().map(parse_span).transpose()?;
    let mut maps = context.maps()?;
    let expires_at = span.map_or(Ok(Some(0)), |span| end_of(span, &maps, context))?;
    let expires_at = expires_at.ok_or_else(|| {
        let text = args.span.clone().unwrap_or_default();
        CliError::Span { text, problem: "too long".to_owned() }
    })?;
    let writing = lock::for_writing(context.pins.path())?;
    maps.settings_writer(writing).add_to_list(kind, Entry { prefix, expires_at })?;
    let is_cut = args.prefix.parse().is_ok_and(|given: IpNet| given != prefix);
    let cut = is_cut.then(|| format!(", the prefix that {} is in", args.prefix));
    let span = span.map(|span| format!(" for {}", humantime::format_duration(span)));
    let verb = if kind == ListKind::Allow { "allowing" } else { "denying" };
    say(&format!("{verb} {prefix}{}{}", span.unwrap_or_default(), cut.unwrap_or_default()))
}

fn delete(kind: ListKind, text: &str, context: &Context) -> Result<Code, CliError> {
    let prefix = parse(text)?;
    let mut maps = context.maps()?;
    let writing = lock::for_writing(context.pins.path())?;
    if !maps.settings_writer(writing).remove_from_list(kind, prefix)? {
        complain(format_args!("{prefix} is not in the list"));
        return Ok(Code::No);
    }
    say(&format!("removed {prefix}"))
}

fn list(
    kind: ListKind,
    text: Option<&str>,
    json: bool,
    context: &Context,
) -> Result<Code, CliError> {
    let wanted = text.map(parse).transpose()?;
    let maps = context.maps()?;
    let (now, per_second) = now(&maps, context)?;
    let mut entries = maps.lists.entries(kind)?;
    entries.retain(|entry| {
        wanted.is_none_or(|wanted| entry.prefix.contains(&wanted) || wanted.contains(&entry.prefix))
    });
    let report = ListReport::new(&entries, now, per_second);
    let mut out = Terminal::stdout();
    if json { write_json(&mut out, &report) } else { report.write_text(&mut out) }
        .map_err(CliError::Output)?;
    Ok(if wanted.is_some() && report.is_empty() { Code::No } else { Code::Done })
}

fn end_of(span: Duration, maps: &GuardMaps, context: &Context) -> Result<Option<u64>, CliError> {
    let (now, per_second) = now(maps, context)?;
    let jiffies = span.as_nanos() * u128::from(per_second) / 1_000_000_000;
    Ok(u64::try_from(jiffies).ok().and_then(|jiffies| now.checked_add(jiffies)))
}

/// Jiffies, and how many a second has.
fn now(maps: &GuardMaps, context: &Context) -> Result<(u64, u32), CliError> {
    let per_second = maps.environment().daemon.jiffies_per_second;
    let clock = KernelClock::from_pin(&context.pins.program(programs::CLOCK))?;
    Ok((clock.now(per_second)?.0, per_second))
}

fn parse_span(text: &str) -> Result<Duration, CliError> {
    let error = |problem| CliError::Span { text: text.to_owned(), problem };
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(error("it must not be zero".to_owned())),
        span => span.map_err(|source| error(source.to_string())),
    }
}

/// An address is the prefix of itself; bits behind the prefix are cut off.
fn parse(text: &str) -> Result<IpNet, PrefixError> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|prefix| prefix.trunc())
        .map_err(|_| PrefixError::Syntax { text: text.to_owned() })
}

fn say(text: &str) -> Result<Code, CliError> {
    writeln!(Terminal::stdout(), "{text}").map_err(CliError::Output)?;
    Ok(Code::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix_of_itself() {
        assert_eq!(parse("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(parse("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
    }

    #[test]
    fn bits_behind_the_prefix_are_cut_off() {
        assert_eq!(parse("192.0.2.7/24").unwrap().to_string(), "192.0.2.0/24");
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["300.1.1.1/8", "192.0.2.0/33", "192.0.2", "", "2001:db8::/129", "wan0"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
