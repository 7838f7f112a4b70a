//! `ctguard detach`: remove the guard, the daemon gone.

use std::io;

use clap::Args;

use super::{CliError, Code, Context, context::require_privileges};
use crate::daemon::dismantle;
use crate::terminal::complain;
use ctguard_kernel::{
    lock,
    maps::{GuardMaps, OpenError, layout_of},
};

/// Remove the guard from the kernel: programs, maps and pins
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard detach\n\n\
    While a daemon runs, stop the daemon instead (Ctrl-C, or systemctl stop ctguard). It removes the\n\
    guard when it ends, unless it was started with --on-exit keep.")]
pub(super) struct DetachArgs {}

pub(super) fn run(_args: &DetachArgs, context: &Context) -> Result<Code, CliError> {
    require_privileges()?;
    let lock = lock::for_daemon(context.pins.path())?;
    let result = check(context)
        .and_then(|()| dismantle(&context.pins).map_err(CliError::cannot("remove the guard")));
    lock.remove();
    result?;
    complain(format_args!("removed {}", context.pins.path().display()));
    Ok(Code::Done)
}

/// What a start left that was cut short may go too, and another release's guard: names of pins stay.
fn check(context: &Context) -> Result<(), CliError> {
    match GuardMaps::open(&context.pins) {
        Ok(_) | Err(OpenError::Incomplete { .. } | OpenError::OtherLayout { .. }) => Ok(()),
        Err(error) if matches!(layout_of(&context.pins), Err(OpenError::NoGuard { .. })) => {
            match context.pins.attached() {
                Ok(found) if !found.is_empty() => Ok(()),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(CliError::cannot("remove the guard")(error))
                }
                Ok(_) | Err(_) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}
