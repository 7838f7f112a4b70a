//! `ctguard feeds`: the lists that are kept elsewhere, and how they are read.

use clap::Args;

use super::{CliError, Code, Context};
use crate::{
    feeds::feeds_status,
    report::FeedsReport,
    terminal::{Terminal, complain, write_json},
};

/// Show lists that are kept elsewhere; exit status 1 if one cannot be read
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard feeds\n  ctguard deny list 192.0.2.7   \
    which feed lists an address?\n\ndocs/lists.md says how to configure feeds.")]
pub(super) struct FeedsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &FeedsArgs, context: &Context) -> Result<Code, CliError> {
    // Without a guard, what is left of one tells nothing.
    let maps = context.maps()?;
    let report = FeedsReport::new(feeds_status(), &maps.refusals()?);
    if report.feeds.is_empty() && !args.json {
        complain(format_args!("no feeds are configured"));
    }
    let mut out = Terminal::stdout();
    if args.json { write_json(&mut out, &report) } else { report.write_text(&mut out) }
        .map_err(CliError::Output)?;
    Ok(if report.has_fault() { Code::No } else { Code::Done })
}
