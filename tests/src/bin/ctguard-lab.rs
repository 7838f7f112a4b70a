//! Shows on real traffic what a flood does to a NAT router, and what ctguard does to the flood.
use std::{fs, num::NonZeroU32, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use ctguard_tests::{
    addresses::Family,
    lab::{self, LabOptions, Runs},
    picture,
    recipe::{FloodKind, Rate},
    report::Report,
    rows::{self, Bench, Length, Only},
    script::Interrupted,
    summary,
};

/// A NAT router in network namespaces, legitimate clients 20 ms away, and a flood, first without
/// and then with ctguard.
///
/// Needs root, and the tools ip, nft, ethtool and nsenter. All traffic stays in namespaces that
/// the lab makes and removes; the host's maximum of conntrack entries and the width of their hash
/// are changed for the time and restored.
///
/// With --row it tries what ctguard promises instead, row by row, prints a Markdown table of bars
/// and numbers, and exits with status 1 where a bar is missed.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "one field for each switch")]
struct Arguments {
    /// Kind of the flood
    #[arg(long, default_value = "syn-one-source")]
    flood: FloodKind,
    /// How long the flood lasts, in seconds; 20, or as long as a row says
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
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
    /// Legitimate new flows a second from outside, instead of what the table is large for
    #[arg(long, value_name = "N")]
    legitimate: Option<f64>,
    /// How long packets travel between far hosts and the router and back, in milliseconds
    #[arg(long, default_value_t = 20, value_name = "MS")]
    round_trip: u32,
    /// Buckets of the table's hash, instead of one for each entry as is the kernel's own default. In
    /// a wide hash a full table finds nothing to replace
    #[arg(long, value_name = "N")]
    buckets: Option<u64>,
    /// All traffic over IPv6
    #[arg(long)]
    ipv6: bool,
    /// The ctguard to try
    #[arg(long, default_value = "target/release/ctguard", value_name = "PATH")]
    ctguard: PathBuf,
    /// A setting for it, given on to `ctguard run --set`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where report.json, lab.svg, lab.png and ctguard.log go; of rows, a report and a
    /// picture for each round
    #[arg(long, default_value = "target/lab", value_name = "DIR")]
    out: PathBuf,
    /// Only runs with ctguard
    #[arg(long, conflicts_with = "unguarded_only")]
    guarded_only: bool,
    /// Only runs without a guard; of rows, no bar is judged
    #[arg(long)]
    unguarded_only: bool,
    /// Add a run with a program that drops exactly the flood: what no guard can better
    #[arg(long)]
    ideal: bool,
    /// Only that run
    #[arg(long, conflicts_with_all = ["unguarded_only", "guarded_only"])]
    ideal_only: bool,
    /// Try this row of what ctguard promises, or `all`; may be repeated. An unknown name is
    /// answered with all that there are
    #[arg(
        long = "row",
        value_name = "NAME",
        conflicts_with_all = ["flood", "pps", "table", "port_dropped", "legitimate", "buckets",
            "ipv6", "settings", "ideal", "ideal_only"],
    )]
    rows: Vec<String>,
    /// A few seconds a row, guarded runs only, by bars that bear a machine that stalls
    #[arg(long, requires = "rows")]
    short: bool,
    /// Try each row so often, without and with ctguard in turn. The median counts; of the fill, of
    /// flows dropped for a full table and of broken exchanges, the worst
    #[arg(long, requires = "rows", default_value = "1", value_name = "N")]
    rounds: NonZeroU32,
    /// Connections of an office behind one far address, which speak now and then: none may break
    #[arg(long, default_value_t = 0, value_name = "N")]
    office: u32,
    /// Say nothing on standard error
    #[arg(short, long)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask lab
  cargo xtask lab --flood udp-spoofed --table 262144
  cargo xtask lab --row syn-spoofed --row killed
  cargo xtask lab --row udp-spoofed --rounds 3
  cargo xtask lab --row all --short";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.rows.is_empty() { run(&arguments) } else { try_rows(&arguments) };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ctguard-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_rows(arguments: &Arguments) -> Result<ExitCode> {
    let rows = rows::named(&arguments.rows)?;
    let length = if arguments.short { Length::Short } else { Length::Full };
    let mut bench =
        Bench::new(arguments.ctguard.clone(), arguments.out.clone(), length, arguments.rounds);
    bench.only = match (arguments.guarded_only, arguments.unguarded_only) {
        (true, _) => Some(Only::Guarded),
        (_, true) => Some(Only::Unguarded),
        _ => None,
    };
    bench.seconds = arguments.seconds;
    bench.office = arguments.office;
    bench.round_trip = Duration::from_millis(arguments.round_trip.into());
    let mut missed = 0_usize;
    println!("{}", rows::head());
    for row in rows {
        for &table_max in bench.tables(row) {
            let told = bench.run(row, table_max, &|what| arguments.say(what));
            if let Err(error) = &told.found
                && error.is::<Interrupted>()
            {
                bail!("{error:#}");
            }
            missed += usize::from(!told.held());
            println!("{}", rows::table(&told));
        }
    }
    arguments.say(&match missed {
        0 => "every bar was cleared".to_owned(),
        some => format!("rows that missed a bar: {some}"),
    });
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let progress = |what: &str| arguments.say(what);
    let report = lab::run(&options(arguments), &progress)?;
    println!("{}\n\n{}", summary::title(&report), summary::table(&report));
    println!("{}", summary::groups(&report));
    println!("{}", summary::cpus(&report));
    if let Some(line) = summary::stages(&report) {
        println!("{line}");
    }
    if let Some(line) = summary::load_fits(&report) {
        println!("{line}");
    }
    let written = write(&report, arguments)?;
    progress(&format!("wrote {written}"));
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn say(&self, what: &str) {
        if !self.quiet {
            eprintln!("ctguard-lab: {what}");
        }
    }
}

fn options(arguments: &Arguments) -> LabOptions {
    let all = !arguments.guarded_only && !arguments.unguarded_only && !arguments.ideal_only;
    let defaults = LabOptions::new(arguments.flood);
    LabOptions {
        flood: arguments.flood,
        rate: arguments.pps.unwrap_or(defaults.rate),
        seconds: arguments.seconds.unwrap_or(defaults.seconds),
        office: arguments.office,
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
        legitimate_per_second: arguments.legitimate,
        idle: lab::IDLE,
        round_trip: Duration::from_millis(arguments.round_trip.into()),
        buckets: arguments.buckets,
        ..defaults
    }
}

fn write(report: &Report, arguments: &Arguments) -> Result<String> {
    let directory = &arguments.out;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let json = serde_json::to_string_pretty(report).context("cannot write the report")?;
    let path = directory.join("report.json");
    fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    picture::draw(report, directory, "lab")?;
    Ok(format!("{0}/report.json, {0}/lab.svg and {0}/lab.png", directory.display()))
}
