//! `ctguard set`: change settings, all or none, in force for the next packet.

use std::io::Write as _;

use clap::Args;

use super::{CliError, Code, Context};
use crate::terminal::{Terminal, complain};
use ctguard_control::fallback;
use ctguard_kernel::{conntrack::Table, lock};
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

pub(super) fn run(args: &SetArgs, context: &Context) -> Result<Code, CliError> {
    let assignments =
        args.assignments.iter().map(|text| text.parse()).collect::<Result<Vec<Assignment>, _>>()?;
    let mut maps = context.maps()?;
    let table = Table::open()?.sample()?;
    // Nobody knows how long printing takes: a terminal may have been stopped.
    let (changes, warning) = {
        let writer = maps.settings_writer(lock::for_writing(context.pins.path())?);
        let mut settings = writer.settings();
        let changes = settings.apply(&assignments)?;
        let daemon = writer.environment().daemon;
        let warning = settings.zone_warning(daemon.lookup_options_bytes)?;
        writer.apply(&settings);
        // No daemon may be there to follow.
        let calm = writer.limits().is_calm();
        let rates = fallback(&settings.policy, table, calm, daemon.jiffies_per_second);
        writer.set_fallback(rates);
        (changes, warning)
    };
    let mut out = Terminal::stdout();
    changes
        .iter()
        .try_for_each(|Change { key, old, new }| writeln!(out, "{key} {old} → {new}"))
        .map_err(CliError::Output)?;
    let of_zones = changes.iter().any(|change| matches!(change.new, Value::Zone(_)));
    if let Some(warning) = warning.filter(|_| of_zones) {
        complain(format_args!("warning: {warning}"));
    }
    Ok(Code::Done)
}
