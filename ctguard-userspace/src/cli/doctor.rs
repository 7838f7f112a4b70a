//! `ctguard doctor`: what is wrong with this machine's connection tracking.

use std::{io, net::IpAddr, path::PathBuf};

use clap::Args;

use super::{CliError, Context, Outcome, status};
use crate::{
    doctor::{Besides, Health, audit},
    host::{Host, Unread},
    maps::{ListKind, OpenError},
    report::{DoctorReport, StatusReport},
};

/// Find what is wrong with connection tracking on this machine, and what mends it
///
/// Reads and changes nothing, whether or not a guard runs. Exit status 1 when something is wrong.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard doctor\n  ctguard doctor --json | jq '.findings[].check'\n  \
    ctguard doctor --flood 500000    how long would such a flood take to fill the table?"
)]
pub(super) struct DoctorArgs {
    /// Check as well whether this interface can be guarded
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,
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

pub(super) fn run(args: &DoctorArgs, context: &Context) -> Result<Outcome, CliError> {
    let host = Host::at(&args.root);
    let guard = if host.is_this() { guard(context) } else { Ok(None) };
    let audit = audit(&host, Besides { interface: args.interface.as_deref(), guard });
    let report = DoctorReport::new(&audit, args.flood);
    let mut out = io::stdout().lock();
    if args.json { report.write_json(&mut out) } else { report.write_text(&mut out) }
        .map_err(CliError::Output)?;
    Ok(if audit.is_clean() { Outcome::Done } else { Outcome::No })
}

/// How the guard is, if there is one.
fn guard(context: &Context) -> Result<Option<Health>, Unread> {
    match status::observe(context) {
        Ok(observed) => Ok(Some(Health {
            unlisted_client: unlisted_client(context),
            ..StatusReport::new(&observed).health()
        })),
        Err(CliError::Open(OpenError::NoGuard { .. })) => Ok(None),
        Err(error) => Err(Unread::new("the guard's maps", &error.sentence())),
    }
}

/// The address at the other end of this SSH session, unless it is on the allow list.
fn unlisted_client(context: &Context) -> Option<String> {
    let connection = std::env::var("SSH_CONNECTION").ok()?;
    let client: IpAddr = connection.split_whitespace().next()?.parse().ok()?;
    let allowed = context.maps().ok()?.lists.entries(ListKind::Allow).ok()?;
    let listed = allowed.iter().any(|entry| entry.prefix.contains(&client));
    (!listed).then(|| client.to_string())
}
