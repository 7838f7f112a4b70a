//! Exit codes, in one place.

use std::{io::Write as _, process::ExitCode};

use super::CliError;

/// A command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Done.
    Done,
    /// The answer is "no": not in the list.
    No,
}

/// What the shell sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    /// Done.
    Done = 0,
    /// The answer is "no", or something else is in the way: another guard, another's program.
    No = 1,
    /// The command is wrong: a bad key, value, prefix or interface.
    Usage = 2,
    /// No guard is loaded.
    NoGuard = 3,
    /// Not permitted.
    NotPermitted = 4,
    /// The kernel lacks something: BPF, connection tracking.
    Kernel = 5,
    /// The pinned maps are another release's.
    Layout = 6,
}

/// Prints an error as one line and gives the exit code.
pub(super) fn conclude(result: Result<Outcome, CliError>) -> ExitCode {
    let code = match result {
        Ok(Outcome::Done) => Code::Done,
        Ok(Outcome::No) => Code::No,
        // Who reads our output has seen enough.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Code::Done
        }
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "ctguard: {}", error.sentence());
            error.code()
        }
    };
    ExitCode::from(code as u8)
}
