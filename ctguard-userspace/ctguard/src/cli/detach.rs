//! `ctguard detach`: remove the guard, the daemon gone.

use std::io;

use clap::Args;

use super::{CliError, Code, Context, context::require_privileges};
use crate::daemon::dismantle;
use crate::terminal::complain;
use ctguard_kernel::{
    bpf, lock,
    maps::{OpenError, layout_of},
};

/// Remove the guard from the kernel: programs, maps and pins
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard detach           no daemon runs\n  \
    ctguard detach --stop    end the daemon first\n\n\
    A daemon that ends removes the guard, unless it was started with --on-exit keep. If systemd started\n\
    it: systemctl stop ctguard.")]
pub(super) struct DetachArgs {
    /// End the daemon first, if one runs
    #[arg(long)]
    stop: bool,
}

pub(super) fn run(args: &DetachArgs, context: &Context) -> Result<Code, CliError> {
    require_privileges()?;
    let has_ended = args.stop && context.end_daemon()?;
    let lock = lock::for_daemon(context.pins.path())?;
    let remove = || {
        bpf::finish_replacement(&context.pins).map_err(CliError::cannot("remove the guard"))?;
        check(context)?;
        dismantle(&context.pins).map_err(CliError::cannot("remove the guard"))
    };
    let result = remove();
    lock.remove();
    match result {
        // The daemon removed it.
        Err(CliError::Open(OpenError::NoGuard { .. })) if has_ended => {}
        result => result?,
    }
    complain(format_args!("removed {}", context.pins.path().display()));
    Ok(Code::Done)
}

/// What a start left that was cut short may go too, and a guard of another map layout: names of pins stay.
fn check(context: &Context) -> Result<(), CliError> {
    match layout_of(&context.pins) {
        // Also if it has lost other maps.
        Ok(_) => Ok(()),
        Err(error @ OpenError::NoGuard { .. }) => match context.pins.attached() {
            Ok(found) if !found.is_empty() => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CliError::cannot("remove the guard")(error))
            }
            Ok(_) | Err(_) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}
