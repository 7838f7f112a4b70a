//! `ctguard reload`: have the daemon read its configuration again.

use std::{
    io::Write as _,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use ctguard_kernel::{
    lock,
    maps::{GuardMaps, ListKind},
};
use rustix::process::Signal;

use super::{CliError, Code, Context, in_use::read_configuration_in_use, operator};
use crate::{event_file::EventFile, events::What, terminal::Terminal};

/// A tick in calm takes a tenth of a second, and the daemon waits for commands that change settings.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Have the daemon read its configuration again: all of it is used, or nothing
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard config check && ctguard reload\n\n\
    Settings that `ctguard set` changed are back to what the configuration says.\n\
    `mode`, `new-flow-detection` and `on-exit` apply from the next start on.")]
pub(super) struct ReloadArgs {
    /// Use it even if it denies the address that you are logged in from over SSH
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &ReloadArgs, context: &Context) -> Result<Code, CliError> {
    // Nothing is made where no guard is.
    let maps = context.maps()?;
    if !args.force {
        spare_the_operator(&maps, context)?;
    }
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

/// # Errors
/// If the configuration adds the operator's own address to the deny list.
fn spare_the_operator(maps: &GuardMaps, context: &Context) -> Result<(), CliError> {
    let clients = operator::clients();
    if clients.is_empty() {
        return Ok(());
    }
    // What is wrong with it, the daemon says.
    let Ok(config) = read_configuration_in_use(context) else { return Ok(()) };
    let mut denied = maps.lists.entries(ListKind::Deny)?;
    denied.retain(|entry| entry.expires_at == 0);
    for (&prefix, origin) in config.list(ListKind::Deny) {
        let holds = |client: &&IpAddr| prefix.contains(*client);
        if let Some(&client) = clients.iter().find(holds)
            && !denied.iter().any(|entry| entry.prefix.contains(&client))
        {
            let origin = Box::new(origin.clone());
            return Err(CliError::ReloadDeniesOperator { client, prefix, origin });
        }
    }
    Ok(())
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
