//! `ctguard status`: what the guard sees and does, at one glance.

use std::io;

use clap::Args;
use ctguard_ebpf::layout::programs;

use super::{CliError, Context, Outcome};
use crate::{
    bpf::{KernelClock, is_attached},
    conntrack::Table,
    lock,
    maps::ListKind,
    report::{Observation, ObservedInterface, StatusReport},
};

/// Show the table's fill, the limits in force, and what was refused
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard status\n  ctguard status --json | jq .conntrack.fill_ratio"
)]
pub(super) struct StatusArgs {
    /// Print JSON (fields are only ever added; see `schema_version`)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs, context: &Context) -> Result<Outcome, CliError> {
    let report = StatusReport::new(&observe(context)?);
    let mut out = io::stdout().lock();
    if args.json { report.write_json(&mut out) } else { report.write_text(&mut out) }
        .map_err(CliError::Output)?;
    Ok(Outcome::Done)
}

fn observe(context: &Context) -> Result<Observation, CliError> {
    let maps = context.maps()?;
    let table = Table::open()?;
    let environment = maps.environment()?;
    let clock = KernelClock::from_pin(&context.pins.program(programs::CLOCK))?;
    let grant = &maps.grant;
    let interfaces = maps.interfaces.used()?;
    let now = clock.now(environment.jiffies_per_second)?.0;
    let live = |kind| -> Result<usize, CliError> {
        Ok(maps.lists.entries(kind)?.iter().filter(|entry| entry.is_live(now)).count())
    };
    Ok(Observation {
        loaded: table.is_there(),
        table: table.sample()?,
        policy: maps.policy()?,
        environment,
        now,
        heartbeat: grant.heartbeat.load(),
        admitted: grant.admitted.each_ref().map(|tier| tier.0.load()),
        limits: grant.allowances.each_ref().map(|tier| tier.limit.load()),
        interfaces: interfaces
            .into_iter()
            .map(|slot| ObservedInterface {
                name: slot.name(),
                attached: is_attached(&context.pins, slot.interface.ifindex),
                interface: slot.interface,
            })
            .collect(),
        daemon: lock::holder(&context.pins),
        totals: maps.totals()?,
        allowed_prefixes: live(ListKind::Allow)?,
        denied_prefixes: live(ListKind::Deny)?,
        known_load: maps.flow_memory()?.load(&environment),
        map_bytes: maps.bytes()?,
    })
}
