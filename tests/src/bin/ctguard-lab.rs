//! Shows on real traffic what a flood does to a NAT router, and what ctguard does to the flood.
use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use ctguard_tests::{
    addresses::Family,
    lab::{self, LabOptions, Runs},
    picture,
    recipe::{FloodKind, Rate},
    report::Report,
    summary,
};

/// A NAT router in network namespaces, legitimate clients 20 ms away, and a flood, first without
/// and then with ctguard.
///
/// Needs root, and the tools ip, nft, ethtool and nsenter. All traffic stays in namespaces that
/// the lab makes and removes; the host's maximum of conntrack entries is changed for the time and
/// restored.
#[derive(Parser)]
#[command(version)]
#[expect(clippy::struct_excessive_bools, reason = "one field for each switch")]
struct Arguments {
    /// Kind of the flood
    #[arg(long, default_value = "syn-one-source")]
    flood: FloodKind,
    /// How long the flood lasts, in seconds
    #[arg(long, default_value_t = 20, value_name = "N")]
    seconds: u32,
    /// Packets a second of the flood, 500000 unless told otherwise; `max` or 0 is as many as one
    /// CPU makes. Of sources that complete their connections, new connections a second, 50000
    #[arg(long, value_name = "N")]
    pps: Option<Rate>,
    /// Entries that the router's table takes
    #[arg(long, default_value_t = 16_384, value_name = "N")]
    table: u64,
    /// Aim the flood at a port that the router's own rules drop
    #[arg(long)]
    port_dropped: bool,
    /// All traffic over IPv6
    #[arg(long)]
    ipv6: bool,
    /// The ctguard to try
    #[arg(long, default_value = "target/release/ctguard", value_name = "PATH")]
    ctguard: PathBuf,
    /// A setting for it, given on to `ctguard run --set`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where report.json, lab.svg, lab.png and ctguard.log go
    #[arg(long, default_value = "target/lab", value_name = "DIR")]
    out: PathBuf,
    /// Only the run with ctguard
    #[arg(long, conflicts_with = "unguarded_only")]
    guarded_only: bool,
    /// Only the run without a guard
    #[arg(long)]
    unguarded_only: bool,
    /// Add a run with a program that drops exactly the flood: what no guard can better
    #[arg(long)]
    ideal: bool,
    /// Only that run
    #[arg(long, conflicts_with_all = ["unguarded_only", "guarded_only"])]
    ideal_only: bool,
    /// Say nothing on standard error
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctguard-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let progress = |what: &str| {
        if !arguments.quiet {
            eprintln!("ctguard-lab: {what}");
        }
    };
    let report = lab::run(&options(arguments), &progress)?;
    println!("{}\n\n{}", summary::title(&report), summary::table(&report));
    if let Some(line) = summary::load_fits(&report) {
        println!("{line}");
    }
    let written = write(&report, arguments)?;
    progress(&format!("wrote {written}"));
    Ok(())
}

fn options(arguments: &Arguments) -> LabOptions {
    let all = !arguments.guarded_only && !arguments.unguarded_only && !arguments.ideal_only;
    let defaults = LabOptions::new(arguments.flood);
    LabOptions {
        flood: arguments.flood,
        rate: arguments.pps.unwrap_or(defaults.rate),
        seconds: arguments.seconds,
        table_max: arguments.table,
        port_dropped: arguments.port_dropped,
        family: if arguments.ipv6 { Family::Ipv6 } else { defaults.family },
        ctguard: arguments.ctguard.clone(),
        settings: arguments.settings.clone(),
        log: arguments.out.join("ctguard.log"),
        runs: Runs {
            baseline: all,
            unguarded: all || arguments.unguarded_only,
            guarded: all || arguments.guarded_only,
            ideal: arguments.ideal || arguments.ideal_only,
        },
    }
}

fn write(report: &Report, arguments: &Arguments) -> Result<String> {
    let directory = &arguments.out;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let json = serde_json::to_string_pretty(report).context("cannot write the report")?;
    let path = directory.join("report.json");
    fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    picture::draw(report, directory)?;
    Ok(format!("{0}/report.json, {0}/lab.svg and {0}/lab.png", directory.display()))
}
