//! `ctguard doctor`: what is wrong with this machine's connection tracking.

use std::{io, path::PathBuf};

use clap::Args;

use super::{CliError, Outcome};
use crate::{doctor::audit, host::Host, report::DoctorReport};

/// Find what is wrong with connection tracking on this machine, and what mends it
///
/// Reads and changes nothing, whether or not a guard runs. Exit status 1 when something is wrong.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard doctor\n  ctguard doctor --json | jq '.findings[].check'\n  \
    ctguard doctor --flood 500000    how long would such a flood take to fill the table?"
)]
pub(super) struct DoctorArgs {
    /// Print JSON (fields are only ever added; see `schema_version`)
    #[arg(long)]
    json: bool,
    /// New flows a second of the flood whose time to fill the table is told
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    flood: u32,
    /// Examine another machine by a copy of its /proc, /sys and /etc
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
}

pub(super) fn run(args: &DoctorArgs) -> Result<Outcome, CliError> {
    let audit = audit(&Host::at(&args.root));
    let report = DoctorReport::new(&audit, args.flood);
    let mut out = io::stdout().lock();
    if args.json { report.write_json(&mut out) } else { report.write_text(&mut out) }
        .map_err(CliError::Output)?;
    Ok(if audit.is_clean() { Outcome::Done } else { Outcome::No })
}
