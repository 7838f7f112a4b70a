//! `ctguard set`: change settings, all or none, in force for the next packet.

use std::io::{self, Write as _};

use clap::Args;
use ctguard_ebpf::layout::Interface;

use super::{CliError, Context, Outcome};
use ctguard_control::fallback;
use ctguard_kernel::{
    conntrack::Table,
    lock,
    maps::{GuardMaps, Slot},
};
use ctguard_settings::{Assignment, Change, InterfaceSettings, Key, Settings};
use ctguard_units::ceilings;

/// Change settings at once, daemon or not
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard set source.tcp.rate=200/s source.tcp.burst=400\n  \
    ctguard set target=80%\n  ctguard set interface.lan0.source.udp.rate=default\n  \
    ctguard set interface.wan1.zone=5\n\n\
    Keys: target, dry-run, fail-open, fallback.rate, source.{tcp,udp,other}.{rate,burst},\n\
    interface.NAME.source.{tcp,udp,other}.{rate,burst}, interface.NAME.zone (the conntrack zone\n\
    that rules set for what arrives there). The value `default` takes one back.")]
pub(super) struct SetArgs {
    /// What to change
    #[arg(required = true, value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

pub(super) fn run(args: &SetArgs, context: &Context) -> Result<Outcome, CliError> {
    let assignments =
        args.assignments.iter().map(|text| text.parse()).collect::<Result<Vec<Assignment>, _>>()?;
    let mut maps = context.maps()?;
    // Nobody knows how long printing takes: a terminal may have been stopped.
    let writing = lock::for_writing(context.pins.path())?;
    let mut settings = read_settings(&maps)?;
    let changes = settings.apply(&assignments)?;
    let zones = settings.zones(maps.environment()?.lookup_options_bytes)?;
    write_settings(&mut maps, &settings)?;
    drop(writing);
    let mut out = io::stdout().lock();
    changes
        .iter()
        .try_for_each(|Change { key, old, new }| writeln!(out, "{key} {old} → {new}"))
        .map_err(CliError::Output)?;
    let of_zones = changes.iter().any(|change| matches!(change.key, Key::Zone(_)));
    if let Some(warning) = zones.warning().filter(|_| of_zones) {
        eprintln!("ctguard: warning: {warning}");
    }
    Ok(Outcome::Done)
}

/// The settings as the maps hold them.
pub(super) fn read_settings(maps: &GuardMaps) -> Result<Settings, CliError> {
    let interfaces = maps.interfaces.used()?;
    Ok(Settings {
        policy: maps.policy()?,
        interfaces: interfaces.iter().map(Slot::settings).collect(),
    })
}

/// Writes the policy, and what follows from it for each interface.
fn write_settings(maps: &mut GuardMaps, settings: &Settings) -> Result<(), CliError> {
    let jiffies_per_second = maps.environment()?.jiffies_per_second;
    maps.set_policy(settings.policy)?;
    maps.note_scopes(&settings.policy)?;
    // No daemon may be there to follow.
    let table = Table::open()?.sample()?;
    let calm = maps.limits()?.is_calm();
    maps.set_fallback(fallback(&settings.policy, table, calm, jiffies_per_second));
    for slot in maps.interfaces.used()? {
        let name = slot.name();
        let own = settings.interfaces.iter().find(|interface| interface.name == name).cloned();
        let InterfaceSettings { overrides, zone, answers, .. } =
            own.unwrap_or_else(|| slot.settings());
        maps.interfaces.put(Interface {
            overrides,
            zone: zone.into(),
            answers_nothing: u32::from(!answers),
            ceilings: ceilings(&settings.policy.source, &overrides, jiffies_per_second),
            ..slot.interface
        })?;
    }
    Ok(())
}
