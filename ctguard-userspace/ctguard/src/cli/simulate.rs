//! `ctguard simulate`: what a load would come to, in a time of its own.

use std::{io::Write as _, path::PathBuf, time::Duration};

use clap::Args;

use super::{CliError, Code};
use crate::terminal::{Terminal, write_json};
use ctguard_settings::Assignment;
use ctguard_simulation::Options;

/// Simulate how the guard handles a described or recorded load; needs no root
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard simulate docs/scenarios/one-source.toml\n  \
    ctguard simulate office.toml --set source.tcp.rate=20/s --plot office.svg\n  \
    ctguard simulate wan0.pcap --table-max 16384 --speed 4\n  \
    ctguard simulate flood.toml --json | jq .table.fill_peak_ratio\n\n\
    The guard's own code decides about every packet. The same seed gives the same report.\n\
    `--set dry-run=on` shows what the load does without a guard.\n\
    Exit status 1 if the result is not what the scenario expects.")]
pub(super) struct SimulateArgs {
    /// Scenario (TOML, see docs/scenarios), or recording of new flows (pcap or pcapng)
    file: PathBuf,
    /// Accepted like by other verbs, but nothing is pinned
    #[arg(long, id = "pin_path", hide = true)]
    _pin_path: Option<PathBuf>,
    /// Seed for the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Setting that overrides the scenario's; repeat it for more
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Length of the load in seconds, instead of the scenario's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Maximum of the table [default: what the scenario says; 262144 for a recording]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    table_max: Option<u32>,
    /// Replay a recording FACTOR times as fast
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    speed: Option<f64>,
    /// Draw fill, shares, refusals and success into an SVG file
    #[cfg(feature = "plot")]
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SimulateArgs) -> Result<Code, CliError> {
    let assignments =
        args.settings.iter().map(|text| text.parse()).collect::<Result<Vec<Assignment>, _>>()?;
    let options = Options {
        seed: args.seed,
        assignments,
        duration: args.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        table_max: args.table_max,
        speed: args.speed,
    };
    let report = ctguard_simulation::simulate(&args.file, &options)?;
    #[cfg(feature = "plot")]
    if let Some(path) = &args.plot {
        ctguard_simulation::draw(&report, path)?;
    }
    let mut out = Terminal::stdout();
    if args.json {
        write_json(&mut out, &report)
    } else {
        out.write_all(report.to_string().as_bytes())
    }
    .map_err(CliError::Output)?;
    Ok(if report.is_as_expected() { Code::Done } else { Code::No })
}

fn speed(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| (0.001..=1_000_000.0).contains(factor));
    factor.ok_or_else(|| "give a factor from 0.001 to 1000000".to_owned())
}
