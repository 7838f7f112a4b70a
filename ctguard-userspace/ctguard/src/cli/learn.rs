//! `ctguard learn`: have the daemon read the table now.

use clap::Args;
use rustix::process::Signal;

use super::{CliError, Code, Context};
use crate::terminal::complain;

/// Have the daemon read the connection table again, for entries that no packet made
///
/// Until the daemon has read it, the program asks conntrack about each flow that it does not know.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctguard learn    after `conntrackd -c`, at a failover\n\n\
    The daemon also does this by itself when many entries appear that it did not admit.")]
pub(super) struct LearnArgs {}

pub(super) fn run(_args: &LearnArgs, context: &Context) -> Result<Code, CliError> {
    context.tell_daemon(Signal::USR1)?;
    complain(format_args!("the daemon reads the connection table again"));
    Ok(Code::Done)
}
