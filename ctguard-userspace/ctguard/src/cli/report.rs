//! `ctguard report`: one incident as a page that can be sent away.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::SystemTime,
};

use clap::Args;

use super::{CliError, Code, Context, in_use::state_in_use, incidents::kept};
use crate::{
    files::FileError,
    incidents::{Colophon, page},
    terminal::Terminal,
};

/// Write one incident as a page of HTML, with plots, to send to a provider
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard report -o incident.html\n  \
    ctguard report 3 >incident-3.html\n\n\
    The page needs no other file and runs no script. `ctguard incidents` lists the numbers.\n\
    Exit status 1 if there is no such incident.")]
pub(super) struct ReportArgs {
    /// Number of the incident [default: the newest]
    #[arg(value_name = "N")]
    number: Option<u64>,
    /// Write the page into FILE
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Directory where the daemon keeps incidents [default: the running daemon's, or /var/lib/ctguard]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(super) fn run(args: &ReportArgs, context: &Context) -> Result<Code, CliError> {
    if args.output.is_none() && rustix::stdio::stdout().is_terminal() {
        return Err(CliError::PageOnTerminal);
    }
    let all = kept(&state_in_use(args.state.as_deref(), context))?;
    let incident = match args.number {
        Some(number) => all.iter().find(|incident| incident.number == number),
        None => all.last(),
    };
    let incident = incident.ok_or(CliError::NoIncident(args.number))?;
    let colophon = Colophon {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        written: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    };
    let page = page(incident, &colophon);
    match &args.output {
        Some(path) => fs::write(path, page).map_err(FileError::new("write", path))?,
        None => Terminal::stdout().write_all(page.as_bytes()).map_err(CliError::Output)?,
    }
    Ok(Code::Done)
}
