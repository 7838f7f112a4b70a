//! `ctguard get`: the settings in force.

use std::io::Write as _;

use clap::Args;

use super::{CliError, Context, Outcome};
use crate::{report::SettingsReport, terminal::Terminal};
use ctguard_settings::{Key, SettingError};

/// Show the settings in force
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard get\n  ctguard get source.tcp.rate\n  \
    ctguard get --json | jq .settings\n\n\
    `ctguard set --help` says what each setting means.")]
pub(super) struct GetArgs {
    /// Setting to show; without it, all settings are shown
    key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &GetArgs, context: &Context) -> Result<Outcome, CliError> {
    let key = args
        .key
        .as_ref()
        .map(|text| text.parse::<Key>().map_err(SettingError::from))
        .transpose()?;
    let maps = context.maps()?;
    let settings = maps.settings();
    let keys = key.clone().map_or_else(
        || {
            let interfaces = settings.interfaces.iter();
            let mut keys = Key::all();
            keys.extend(interfaces.flat_map(|interface| Key::of_interface(&interface.name)));
            keys
        },
        |key| vec![key],
    );
    let values = keys
        .into_iter()
        .map(|key| settings.get(&key).map(|value| (key, value)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut out = Terminal::stdout();
    match (&key, values.as_slice()) {
        (_, values) if args.json => {
            let report = SettingsReport::new(values);
            report.write_json(&mut out)
        }
        (Some(_), [(_, value)]) => writeln!(out, "{value}"),
        (_, values) => values.iter().try_for_each(|(key, value)| writeln!(out, "{key} {value}")),
    }
    .map_err(CliError::Output)?;
    Ok(Outcome::Done)
}
