//! `ctguard doctor`: finds what is wrong with this machine's connection tracking.

use std::{net::IpAddr, path::PathBuf, time::Instant};

use clap::Args;
use ipnet::IpNet;

use super::{CliError, Code, Context, operator, status};
use crate::{
    event_file::EventFile,
    events::{StageEvent, What},
    report::{DoctorReport, InterfaceReport, write_doctor},
    terminal::{Terminal, write_json},
};
use ctguard_audit::{
    doctor::{Asked, Besides, Health, audit},
    host::{Host, Unread},
};
use ctguard_kernel::maps::{GuardMaps, ListError, ListKind, OpenError, Slot};
use ctguard_layout::Policy;

/// How many events are searched for the last change of stage.
const EVENTS: usize = 1000;

/// Find what is wrong with connection tracking on this machine, and how to fix it
///
/// Changes nothing, and needs no guard. The exit status is 1 if it finds a fault or a warning.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard doctor\n  ctguard doctor --json | jq '.findings[].check'\n  \
    ctguard doctor --flood 500000    how soon would such a flood fill the table?"
)]
pub(super) struct DoctorArgs {
    /// Also check whether this interface can be guarded
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Print JSON (later versions only add fields; see `schema_version`)
    #[arg(long)]
    json: bool,
    /// Say how soon a flood of N new flows per second would fill the table
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    flood: u32,
    /// Examine a copy of another machine's /proc, /sys and /etc
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
}

pub(super) fn run(args: &DoctorArgs, context: &Context) -> Result<Code, CliError> {
    let host = Host::at(&args.root);
    let guard = if host.is_this() { Guarded::find(context) } else { Ok(None) };
    let health = || guard?.map(|guard| guard.health(context)).transpose();
    let interface = args.interface.as_deref();
    let interface = interface.map(|interface| Asked { interface, pins: &context.pins });
    let besides = Besides { interface, flood: args.flood, guard: Box::new(health) };
    let audit = audit(&host, besides);
    let mut out = Terminal::stdout();
    let report = DoctorReport::new(&audit);
    if args.json { write_json(&mut out, &report) } else { write_doctor(&audit, &mut out) }
        .map_err(CliError::Output)?;
    Ok(if audit.is_clean() { Code::Done } else { Code::No })
}

/// A guard, and what it had refused when the audit began.
struct Guarded {
    maps: GuardMaps,
    began: Instant,
    refused: u64,
}

impl Guarded {
    /// None where none is loaded.
    fn find(context: &Context) -> Result<Option<Self>, Unread> {
        let maps = match context.maps() {
            Ok(maps) => maps,
            Err(CliError::Open(OpenError::NoGuard { .. })) => return Ok(None),
            Err(error) => return Err(unread(&error)),
        };
        let totals = maps.totals().map_err(|error| unread(&error.into()))?;
        Ok(Some(Self { maps, began: Instant::now(), refused: totals.refused() }))
    }

    fn health(&self, context: &Context) -> Result<Health, Unread> {
        let status = status::read(context, &self.maps).map_err(|error| unread(&error))?;
        let totals = self.maps.totals().map_err(|error| unread(&error.into()))?;
        let names = |wanted: fn(&InterfaceReport) -> bool| {
            let interfaces = status.interfaces.iter().filter(|interface| wanted(interface));
            interfaces.map(|interface| interface.name.clone()).collect()
        };
        let slots = self.maps.interfaces.used();
        let silent = slots.iter().filter(|slot| slot.interface.answers_nothing != 0);
        let allowed = self.maps.lists.entries(ListKind::Allow);
        let allowed = allowed.map_err(|error| unread(&error.into()))?;
        let mut allowed: Vec<_> = allowed.iter().map(|entry| entry.prefix).collect();
        let of_feeds = self.maps.feeds.entries(ListKind::Allow).map_err(ListError::from);
        let of_feeds = of_feeds.map_err(|error| unread(&error.into()))?;
        allowed.extend(of_feeds.iter().map(|listed| listed.prefix));
        Ok(Health {
            daemon_runs: status.daemon.running,
            interfaces: names(|_| true),
            asks_conntrack: self.maps.environment().daemon.lookup_options_bytes > 0,
            is_paused: status.pause.is_some(),
            fallback: status.grant.fallback_active,
            dry_run: status.dry_run,
            detached: names(|interface| !interface.attached),
            waiting: status
                .waiting
                .iter()
                .map(|it| (it.name.clone(), it.obstacle.clone()))
                .collect(),
            generic: names(|interface| interface.attached && interface.mode == "generic"),
            unanswering: silent.map(Slot::name).collect(),
            answers_dns: self.maps.policy().has(Policy::DNS),
            unlisted_client: unlisted_client(&allowed),
            allowed,
            heartbeat_age_seconds: status.daemon.heartbeat_age_seconds,
            refused: totals.refused_by_reason(),
            refused_meanwhile: totals.refused().saturating_sub(self.refused),
            meanwhile: self.began.elapsed(),
            last_stage: last_stage(),
            known_flows_load: status.known_flows.load_ratio,
            known_sources_load: status.known_sources.load_ratio,
            map_bytes: status.maps.bytes,
        })
    }
}

fn unread(error: &CliError) -> Unread {
    Unread::new("the guard's maps", &error.sentence())
}

fn last_stage() -> Option<String> {
    let (events, _) = EventFile::of_this_namespace().ok()?.last(EVENTS).ok()?;
    events.iter().rev().find_map(|event| {
        let What::Stage(StageEvent { class, from, to, .. }) = &event.what else { return None };
        Some(format!("{class} from {from} to {to} at {}", event.time))
    })
}

/// The SSH client's address, unless it is on the allow list.
fn unlisted_client(allowed: &[IpNet]) -> Option<String> {
    let is_listed = |client: &IpAddr| allowed.iter().any(|prefix| prefix.contains(client));
    operator::clients().iter().find(|client| !is_listed(client)).map(ToString::to_string)
}
