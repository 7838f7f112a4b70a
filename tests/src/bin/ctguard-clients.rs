//! Lets real clients make their first contact through a guarded router that is flooded.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use ctguard_tests::clients::{self, Catalogue, Protocol, Trial, docs};

/// Real clients, each with its own defaults, make their first contact through a guarded router:
/// five times without a flood and five times in it, each time from a new address.
///
/// Needs root, and the tools ip, nft, ethtool, nsenter and unshare. The clients and servers are of
/// a Debian root that `cargo xtask clients` makes below target/clients; nothing is installed on the
/// machine but debootstrap. All traffic stays in namespaces that are made and removed; the host's
/// maximum of conntrack entries and the width of their hash are changed for the time and restored.
///
/// Prints a Markdown table of all that was measured by this call and earlier ones.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Try only this client; may be repeated. An unknown name is answered with all that there are
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Try only clients that meet this flood
    #[arg(long)]
    flood: Option<Flood>,
    /// Packets a second of the flood
    #[arg(long, default_value_t = 500_000, value_name = "N")]
    pps: u32,
    /// The ctguard to try
    #[arg(long, default_value = "target/release/ctguard", value_name = "PATH")]
    ctguard: PathBuf,
    /// A setting for it, given on to `ctguard run --set`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where the root is, and where results.json and logs go
    #[arg(long, default_value = "target/clients", value_name = "DIR")]
    out: PathBuf,
    /// Write the table into docs/clients.md as well
    #[arg(long)]
    write_docs: bool,
    /// Only list the Debian packages that clients and servers are of
    #[arg(long)]
    packages: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Flood {
    /// Spoofed SYNs
    Syn,
    /// Spoofed UDP
    Udp,
}

const EXAMPLES: &str = "Examples:
  cargo xtask clients
  cargo xtask clients --flood syn --write-docs
  cargo xtask clients --only curl --only dig";

const DOCS: &str = "docs/clients.md";

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctguard-clients: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let catalogue = Catalogue::read()?;
    if arguments.packages {
        println!("{}", catalogue.packages().join("\n"));
        return Ok(());
    }
    let trial = Trial {
        only: arguments.only.clone(),
        protocols: match arguments.flood {
            None => vec![Protocol::Tcp, Protocol::Udp],
            Some(Flood::Syn) => vec![Protocol::Tcp],
            Some(Flood::Udp) => vec![Protocol::Udp],
        },
        rate: arguments.pps,
        root: arguments.out.join("root"),
        out: arguments.out.clone(),
        ctguard: arguments.ctguard.clone(),
        settings: arguments.settings.clone(),
    };
    let results = clients::run(&trial, &|what| eprintln!("ctguard-clients: {what}"))?;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        println!("{}:\n\n{}", protocol.flood(), results.table(&catalogue, protocol));
    }
    if arguments.write_docs {
        let text = fs::read_to_string(DOCS).with_context(|| format!("cannot read {DOCS}"))?;
        let text = docs::with_tables(&text, &results, &catalogue)?;
        fs::write(DOCS, text).with_context(|| format!("cannot write {DOCS}"))?;
    }
    Ok(())
}
