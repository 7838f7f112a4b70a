//! `ctguard reload`: have the daemon read its configuration again.

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use ctguard_kernel::lock;
use rustix::process::Signal;

use super::{CliError, Code, Context};
use crate::{event_file::EventFile, events::What, terminal::Terminal};

/// A tick in calm takes a tenth of a second, and the daemon waits for commands that change settings.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Have the daemon read its configuration again: all of it is used, or nothing
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard config check && ctguard reload\n\n\
    Settings that `ctguard set` changed are back to what the configuration says.\n\
    `mode`, `new-flow-detection` and `on-exit` apply from the next start on.")]
pub(super) struct ReloadArgs {}

pub(super) fn run(_args: &ReloadArgs, context: &Context) -> Result<Code, CliError> {
    // Nothing is made where no guard is.
    context.maps()?;
    let alone = lock::for_reloading(context.pins.path())?;
    let answer = ask(context);
    alone.remove();
    answer
}

fn ask(context: &Context) -> Result<Code, CliError> {
    let events = EventFile::of_this_namespace()
        .map_err(CliError::cannot("find out the network namespace"))?;
    let (_, mut at) = events.last(0)?;
    context.tell_daemon(Signal::USR2)?;
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        for event in events.since(&mut at)? {
            if let What::Reloaded { changes } = event.what {
                return say(&changes);
            }
            if let What::ReloadRefused { error } = event.what {
                return Err(CliError::ReloadRefused(error));
            }
        }
        if lock::daemon_of(context.pins.path()).is_none() {
            return Err(CliError::NoDaemon);
        }
        thread::sleep(POLL);
    }
    Err(CliError::NoAnswer(PATIENCE))
}

fn say(changes: &[String]) -> Result<Code, CliError> {
    let mut out = Terminal::stdout();
    let written = if changes.is_empty() {
        writeln!(out, "nothing changes")
    } else {
        changes.iter().try_for_each(|change| writeln!(out, "{change}"))
    };
    written.map_err(CliError::Output)?;
    Ok(Code::Done)
}
