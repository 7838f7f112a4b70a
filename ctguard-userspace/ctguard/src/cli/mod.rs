//! The command line: one file a verb, no BPF and no maths here.

mod context;
mod detach;
mod doctor;
mod error;
mod events;
mod exit_code;
mod get;
mod lists;
mod logging;
mod run;
mod set;
mod simulate;
mod status;
mod tune;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use self::{context::Context, error::CliError, exit_code::Outcome};
use ctguard_kernel::maps::ListKind;

/// Guards a router's connection table (`nf_conntrack`) against floods, in XDP
#[derive(Debug, Parser)]
#[command(version, before_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    /// Where the guard is pinned [default: /run/ctguard/ and the network namespace's number]
    #[arg(long, global = true, value_name = "PATH")]
    pin_path: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ctguard doctor                          what is wrong with this machine's settings
  ctguard run -i wan0                     guard wan0 until Ctrl-C
  ctguard status                          what the guard sees and drops
  ctguard events --follow                 what it does, and why
  ctguard set source.tcp.rate=200/s       a new ceiling, in force at once
  ctguard allow add 192.0.2.7 --for 10m   let somebody in for ten minutes";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Get(get::GetArgs),
    Set(set::SetArgs),
    /// Change or show the list of sources that skip their ceilings
    Allow {
        #[command(subcommand)]
        action: lists::ListAction,
    },
    /// Change or show the list of sources of which nothing passes
    Deny {
        #[command(subcommand)]
        action: lists::ListAction,
    },
    Detach(detach::DetachArgs),
    Doctor(doctor::DoctorArgs),
    Tune(tune::TuneArgs),
    Simulate(simulate::SimulateArgs),
}

/// Parses, runs, and turns the result into a sentence and an exit code.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Context::new(cli.pin_path).and_then(|context| match cli.command {
        Command::Run(args) => run::run(&args, &context),
        Command::Status(args) => status::run(&args, &context),
        Command::Events(args) => events::run(&args),
        Command::Get(args) => get::run(&args, &context),
        Command::Set(args) => set::run(&args, &context),
        Command::Allow { action } => lists::run(ListKind::Allow, &action, &context),
        Command::Deny { action } => lists::run(ListKind::Deny, &action, &context),
        Command::Detach(args) => detach::run(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Tune(args) => tune::run(&args, &context),
        Command::Simulate(args) => simulate::run(&args),
    });
    exit_code::conclude(result)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_starts_with_examples() {
        let help = Cli::command().render_help().to_string();
        assert!(help.starts_with("Examples:"), "{help}");
    }
}
