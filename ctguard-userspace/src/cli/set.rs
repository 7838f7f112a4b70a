//! `ctguard set`: change settings, all or none, in force for the next packet.

use std::io::{self, Write as _};

use clap::Args;
use ctguard_ebpf::layout::Interface;

use super::{CliError, Context, Outcome};
use crate::{
    conntrack::Table,
    control::{ceilings, fallback},
    maps::GuardMaps,
    settings::{Assignment, Change, Settings},
};

/// Change settings at once, daemon or not
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard set source.tcp.rate=200/s source.tcp.burst=400\n  \
    ctguard set target=80%\n  ctguard set interface.lan0.source.udp.rate=default\n\n\
    Keys: target, dry-run, fail-open, fallback.rate, source.{tcp,udp,other}.{rate,burst},\n\
    interface.NAME.source.{tcp,udp,other}.{rate,burst}. The value `default` takes one back.")]
pub(super) struct SetArgs {
    /// What to change
    #[arg(required = true, value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

pub(super) fn run(args: &SetArgs, context: &Context) -> Result<Outcome, CliError> {
    let assignments =
        args.assignments.iter().map(|text| text.parse()).collect::<Result<Vec<Assignment>, _>>()?;
    let mut maps = context.maps()?;
    let _writing = context.pins.lock_for_writing().map_err(CliError::Writing)?;
    let mut settings = read_settings(&maps)?;
    let changes = settings.apply(&assignments)?;
    write_settings(&mut maps, &settings)?;
    let mut out = io::stdout().lock();
    changes
        .iter()
        .try_for_each(|Change { key, old, new }| writeln!(out, "{key} {old} → {new}"))
        .map_err(CliError::Output)?;
    Ok(Outcome::Done)
}

/// The settings as the maps hold them.
pub(super) fn read_settings(maps: &GuardMaps) -> Result<Settings, CliError> {
    let interfaces = maps.interfaces.used()?;
    Ok(Settings {
        policy: maps.policy()?,
        interfaces: interfaces.iter().map(|slot| (slot.name(), slot.interface.overrides)).collect(),
    })
}

/// Writes the policy, and what follows from it for each interface.
fn write_settings(maps: &mut GuardMaps, settings: &Settings) -> Result<(), CliError> {
    let jiffies_per_second = maps.environment()?.jiffies_per_second;
    maps.set_policy(settings.policy)?;
    // No daemon may be there to follow.
    let table = Table::open()?.sample()?;
    maps.set_fallback(fallback(&settings.policy, table, jiffies_per_second));
    for slot in maps.interfaces.used()? {
        let name = slot.name();
        let own = settings.interfaces.iter().find(|(interface, _)| *interface == name);
        let overrides = own.map_or(slot.interface.overrides, |(_, overrides)| *overrides);
        maps.interfaces.put(Interface {
            overrides,
            ceilings: ceilings(&settings.policy.source, &overrides, jiffies_per_second),
            ..slot.interface
        })?;
    }
    Ok(())
}
