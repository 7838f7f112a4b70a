//! `ctguard set`: change settings, all or none, in force for the next packet.

use std::io::Write as _;

use clap::Args;

use super::{CliError, Code, Context, in_use::read_configuration_in_use, record::record};
use crate::{
    events::What,
    terminal::{Terminal, complain},
};
use ctguard_control::fallback;
use ctguard_kernel::{conntrack::Table, lock, maps::GuardMaps};
use ctguard_layout::TIERS;
use ctguard_settings::{Assignment, Change, Value, reference};

const EXAMPLES: &str = "\
Examples:
  ctguard set source.tcp.rate=200/s source.tcp.burst=400
  ctguard set target=80%
  ctguard set interface.lan0.source.udp.rate=default
  ctguard set interface.wan1.zone=5";

/// Change settings at once, whether or not a daemon runs
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", reference()))]
pub(super) struct SetArgs {
    /// Setting and its new value; all are applied, or none
    #[arg(required = true, value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

/// What was set.
pub(super) struct Done {
    pub(super) changes: Vec<Change>,
    /// That the next reload undoes it, and whether it does what it should.
    pub(super) notes: Vec<String>,
}

pub(super) fn run(args: &SetArgs, context: &Context) -> Result<Code, CliError> {
    let done = set(&args.assignments, context)?;
    let mut out = Terminal::stdout();
    done.changes.iter().try_for_each(|it| writeln!(out, "{it}")).map_err(CliError::Output)?;
    done.notes.iter().for_each(|note| complain(format_args!("{note}")));
    Ok(Code::Done)
}

/// Sets all of these, or none.
pub(super) fn set(assignments: &[impl AsRef<str>], context: &Context) -> Result<Done, CliError> {
    let assignments = assignments
        .iter()
        .map(|text| text.as_ref().parse())
        .collect::<Result<Vec<Assignment>, _>>()?;
    let (changes, warning) = apply(&assignments, &mut context.maps()?, context)?;
    let mut notes = Vec::new();
    if read_configuration_in_use(context).is_ok_and(|config| config.is_there()) {
        notes.push("until the next reload; to keep it: ctguard save".to_owned());
    }
    let of_zones = changes.iter().any(|change| matches!(change.new, Value::Zone(_)));
    notes.extend(warning.filter(|_| of_zones).map(|warning| format!("warning: {warning}")));
    Ok(Done { changes, notes })
}

/// Changes settings, all or none. Also says what is wrong with zones, if anything.
pub(super) fn apply(
    assignments: &[Assignment],
    maps: &mut GuardMaps,
    context: &Context,
) -> Result<(Vec<Change>, Option<String>), CliError> {
    let table = Table::open()?.sample()?;
    // Nobody knows how long printing takes: a terminal may have been stopped.
    let writer = maps.settings_writer(lock::for_writing(context.pins.path())?);
    let mut settings = writer.settings();
    let changes = settings.apply(assignments)?;
    let daemon = writer.environment().daemon;
    let warning = settings.zone_warning(daemon.lookup_options_bytes)?;
    writer.apply(&settings);
    // No daemon may be there to follow, or to know whom it served.
    let (calm, served) = (writer.limits().is_calm(), [0.0; TIERS]);
    let rates = fallback(&settings.policy, table, calm, &served, daemon.jiffies_per_second);
    writer.set_fallback(rates);
    drop(writer);
    let differences = changes.iter().filter(|change| change.is_one());
    let differences: Vec<_> = differences.map(ToString::to_string).collect();
    if !differences.is_empty() {
        record(What::Changed { changes: differences });
    }
    Ok((changes, warning))
}
