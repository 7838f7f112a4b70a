//! The command line: one file per verb.

mod capture;
mod config;
mod context;
mod detach;
mod doctor;
mod enforce;
mod error;
mod events;
mod exit_code;
mod feeds;
mod get;
mod in_use;
mod incidents;
mod init;
mod journal;
mod learn;
mod lists;
mod logging;
mod metrics;
mod operator;
mod patient;
mod pause;
mod record;
#[cfg(any(test, feature = "reference"))]
mod reference;
mod reload;
mod report;
mod run;
mod save;
mod set;
mod simulate;
mod status;
mod top;
mod tune;
mod watch;
mod why;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};

use self::{context::Context, error::CliError, exit_code::Code};
use crate::terminal::Terminal;
use ctguard_kernel::maps::ListKind;

/// Keep floods from filling the connection table (`nf_conntrack`), with XDP
#[derive(Debug, Parser)]
#[command(
    version,
    bin_name = env!("CARGO_PKG_NAME"),
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
struct Cli {
    /// Directory of the guard's pinned programs and maps [default: /run/ctguard/INODE-OF-THE-NETNS]
    #[arg(long, global = true, value_name = "DIR", display_order = 900)]
    pin_path: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ctguard doctor                          find out what is wrong with this machine
  ctguard init --write                    propose a configuration, in dry run; then: ctguard run
  ctguard enforce                         end the dry run; ctguard pause 10m: nothing is dropped
  ctguard run -i wan0                     guard wan0 until Ctrl-C
  ctguard status                          how full the table is, and what was refused
  ctguard top                             the same live, with keys to allow and deny
  ctguard events --follow                 what the daemon does, and why
  ctguard set source.tcp.rate=200/s       change a ceiling, effective at once
  ctguard allow add 192.0.2.7 --for 10m   exempt an address from ceilings for ten minutes";

const ALLOW_EXAMPLES: &str = "\
Examples:
  ctguard allow add 192.0.2.7
  ctguard allow add 2001:db8::/48 --for 10m
  ctguard allow del 192.0.2.7
  ctguard allow list";

const DENY_EXAMPLES: &str = "\
Examples:
  ctguard deny add 203.0.113.0/24 --for 10m
  ctguard deny del 203.0.113.0/24
  ctguard deny list";

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Why(why::WhyArgs),
    Top(top::TopArgs),
    Capture(capture::CaptureArgs),
    Events(events::EventsArgs),
    Incidents(incidents::IncidentsArgs),
    Report(report::ReportArgs),
    Metrics(metrics::MetricsArgs),
    Get(get::GetArgs),
    Set(set::SetArgs),
    Enforce(enforce::EnforceArgs),
    Pause(pause::PauseArgs),
    /// Manage the allow list: sources that have no ceiling
    #[command(after_help = ALLOW_EXAMPLES, mut_subcommands(|verb| verb.after_help(ALLOW_EXAMPLES)))]
    Allow {
        #[command(subcommand)]
        action: lists::ListAction,
    },
    /// Manage the deny list: sources whose packets are all dropped
    #[command(after_help = DENY_EXAMPLES, mut_subcommands(|verb| verb.after_help(DENY_EXAMPLES)))]
    Deny {
        #[command(subcommand)]
        action: lists::ListAction,
    },
    Feeds(feeds::FeedsArgs),
    Config(config::ConfigArgs),
    Reload(reload::ReloadArgs),
    Save(save::SaveArgs),
    Learn(learn::LearnArgs),
    Detach(detach::DetachArgs),
    Doctor(doctor::DoctorArgs),
    Tune(tune::TuneArgs),
    Simulate(simulate::SimulateArgs),
    #[cfg(feature = "reference")]
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
}

/// Parses, runs, and turns the result into a sentence and an exit code.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return show(&error),
    };
    let result = Context::new(cli.pin_path).and_then(|context| match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Run(args) => run::run(&args, &context),
        Command::Status(args) => status::run(&args, &context),
        Command::Why(args) => why::run(&args, &context),
        Command::Top(args) => top::run(&args, &context),
        Command::Capture(args) => capture::run(&args, &context),
        Command::Events(args) => events::run(&args),
        Command::Incidents(args) => incidents::run(&args, &context),
        Command::Report(args) => report::run(&args, &context),
        Command::Metrics(args) => metrics::run(&args, &context),
        Command::Get(args) => get::run(&args, &context),
        Command::Set(args) => set::run(&args, &context),
        Command::Enforce(args) => enforce::run(&args, &context),
        Command::Pause(args) => pause::run(&args, &context),
        Command::Allow { action } => lists::run(ListKind::Allow, &action, &context),
        Command::Deny { action } => lists::run(ListKind::Deny, &action, &context),
        Command::Feeds(args) => feeds::run(&args, &context),
        Command::Config(args) => config::run(&args, &context),
        Command::Reload(args) => reload::run(&args, &context),
        Command::Save(args) => save::run(&args, &context),
        Command::Learn(args) => learn::run(&args, &context),
        Command::Detach(args) => detach::run(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Tune(args) => tune::run(&args, &context),
        Command::Simulate(args) => simulate::run(&args),
        #[cfg(feature = "reference")]
        Command::Reference(args) => reference::run(&args),
    });
    exit_code::conclude(result)
}

/// Prints help, or what is wrong with the arguments: it quotes them, so it is not clap that prints it.
fn show(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let text = error.render().to_string();
        let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let text = if is_help { text } else { usage_error(&text) };
        // Nobody may be there to read it.
        let _ = Terminal::stderr().write_all(text.as_bytes());
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX))
}

/// What clap says in several paragraphs, in one line like every other error.
fn usage_error(text: &str) -> String {
    let paragraphs = text.trim().split("\n\n");
    let told = paragraphs.filter(|paragraph| !paragraph.starts_with("For more information"));
    let told = told.map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let told = told.collect::<Vec<_>>().join("; ").replace("; Usage: ", "; usage: ");
    format!("ctguard: {}\n", told.strip_prefix("error: ").unwrap_or(&told))
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
    fn a_mistake_on_the_command_line_is_told_in_one_line() {
        let told = |words: &[&str]| {
            let error = Cli::try_parse_from([&["ctguard"], words].concat()).unwrap_err();
            usage_error(&error.render().to_string())
        };
        assert_eq!(
            told(&["allow", "add"]),
            "ctguard: the following required arguments were not provided: <CIDR>; usage: ctguard allow \
             add <CIDR>\n"
        );
        let told = told(&["statsu"]);
        assert!(told.starts_with("ctguard: unrecognized subcommand 'statsu'; tip: "), "{told}");
        assert!(told.ends_with("; usage: ctguard [OPTIONS] <COMMAND>\n"), "{told}");
    }

    #[test]
    fn the_reference_has_every_command_with_what_it_does() {
        let page = include_str!("../../../../docs/reference.md");
        let mut all = Cli::command();
        all.build();
        let mut waiting: Vec<_> = all.get_subcommands().collect();
        while let Some(command) = waiting.pop().filter(|command| !command.is_hide_set()) {
            let name = command.get_bin_name().unwrap();
            let about = command.get_about().unwrap();
            let row = format!("| `{name}` | {about} |");
            assert!(page.contains(&row), "docs/reference.md lacks the row\n{row}");
            waiting.extend(command.get_subcommands());
        }
    }
}
