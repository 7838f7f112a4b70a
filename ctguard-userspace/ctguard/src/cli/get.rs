//! `ctguard get`: the settings in force.

use std::{collections::BTreeMap, io::Write as _};

use clap::Args;
use serde::Serialize;

use super::{CliError, Code, Context};
use crate::{
    report::SCHEMA_VERSION,
    terminal::{Terminal, write_json},
};
use ctguard_settings::{Key, SettingError, Value};

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

/// What `--json` prints.
#[derive(Serialize)]
struct SettingsReport {
    schema_version: u32,
    settings: BTreeMap<String, Value>,
}

pub(super) fn run(args: &GetArgs, context: &Context) -> Result<Code, CliError> {
    let key = args.key.as_ref().map(|text| text.parse::<Key>()).transpose();
    let key = key.map_err(SettingError::from)?;
    let settings = context.maps()?.settings();
    let keys = key.clone().map_or_else(|| settings.keys(), |key| vec![key]);
    let values = keys.iter().map(|key| settings.get(key)).collect::<Result<Vec<_>, _>>()?;
    let values = || keys.iter().map(Key::to_string).zip(values.iter().copied());
    let mut out = Terminal::stdout();
    if args.json {
        let settings = values().collect();
        write_json(&mut out, &SettingsReport { schema_version: SCHEMA_VERSION, settings })
    } else if key.is_some() {
        values().try_for_each(|(_, value)| writeln!(out, "{value}"))
    } else {
        values().try_for_each(|(key, value)| writeln!(out, "{key} {value}"))
    }
    .map_err(CliError::Output)?;
    Ok(Code::Done)
}
