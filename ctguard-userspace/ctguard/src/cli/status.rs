//! `ctguard status`: what the guard sees and does, at one glance.

use clap::Args;
use ctguard_datapath::memory::Moment;
use ctguard_layout::{Environment, Tier, maps, programs, units::Jiffies};

use super::{CliError, Context, Outcome};
use crate::{
    report::{KnownSourceCounts, MemoryLoads, Observation, ObservedInterface, StatusReport},
    terminal::Terminal,
};
use ctguard_control::known_tiers;
use ctguard_kernel::{
    bpf::{KernelClock, is_attached},
    conntrack::Table,
    lock,
    maps::{GuardMaps, ListKind},
};

/// Show how full the table is, the limits in force and what was refused
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard status\n  ctguard status --json | jq .conntrack.fill_ratio"
)]
pub(super) struct StatusArgs {
    /// Print JSON (later versions only add fields; see `schema_version`)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs, context: &Context) -> Result<Outcome, CliError> {
    let report = StatusReport::new(&observe(context, &context.maps()?)?);
    let mut out = Terminal::stdout();
    if args.json { report.write_json(&mut out) } else { report.write_text(&mut out) }
        .map_err(CliError::Output)?;
    Ok(Outcome::Done)
}

fn known_sources(maps: &GuardMaps) -> Result<KnownSourceCounts, CliError> {
    let mut counts = KnownSourceCounts::default();
    for tier in known_tiers(maps.source_memory()?.lines()).flatten() {
        match tier {
            Tier::Regulars => counts.regulars += 1,
            Tier::Strangers | Tier::Allowed | Tier::Proven | Tier::Answered | Tier::Retried => {
                counts.proven += 1;
            }
        }
    }
    Ok(counts)
}

fn memories(
    maps: &GuardMaps,
    environment: &Environment,
    now: Jiffies,
) -> Result<MemoryLoads, CliError> {
    let moment = Moment::at(now, environment.daemon.memory_shift);
    let coarse = Moment::at(now, environment.daemon.coarse_shift);
    Ok(MemoryLoads {
        retries: maps.memory_load(maps::RETRIES, moment, environment.daemon.retry_before)?,
        answered: maps.memory_load(maps::ANSWERED, moment, environment.daemon.answered_life)?,
        resets: maps.memory_load(maps::RESETS, coarse, environment.daemon.reset_life_coarse)?,
    })
}

pub(super) fn observe(context: &Context, maps: &GuardMaps) -> Result<Observation, CliError> {
    let table = Table::open()?;
    let environment = maps.environment();
    let clock = KernelClock::from_pin(&context.pins.program(programs::CLOCK))?;
    let grant = &maps.grant;
    let interfaces = maps.interfaces.used();
    let now = clock.now(environment.daemon.jiffies_per_second)?.0;
    let live = |kind| -> Result<usize, CliError> {
        Ok(maps.lists.entries(kind)?.iter().filter(|entry| entry.is_live(now)).count())
    };
    Ok(Observation {
        loaded: table.is_there(),
        table: table.sample()?,
        policy: maps.policy(),
        environment,
        now,
        heartbeat: grant.heartbeat.load(),
        admitted: grant.admissions(),
        limits: grant.limits(),
        found: maps.limits(),
        known_sources: known_sources(maps)?,
        memories: memories(maps, &environment, Jiffies(now))?,
        interfaces: interfaces
            .into_iter()
            .map(|slot| ObservedInterface {
                name: slot.name(),
                attached: is_attached(&context.pins, slot.interface.ifindex),
                interface: slot.interface,
            })
            .collect(),
        daemon: lock::daemon_of(context.pins.path()).map(|daemon| daemon.pid.unwrap_or_default()),
        totals: maps.totals()?,
        allowed_prefixes: live(ListKind::Allow)?,
        denied_prefixes: live(ListKind::Deny)?,
        known_load: maps.flow_memory()?.load(&environment),
        map_bytes: maps.bytes()?,
    })
}
