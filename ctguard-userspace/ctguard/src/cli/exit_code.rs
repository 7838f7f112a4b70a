//! Exit codes, in one place.

use std::process::ExitCode;

use super::{CliError, logging};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    Done = 0,
    /// The answer is "no", or something else is in the way: another guard, another's program.
    No = 1,
    /// The command is wrong: a bad key, value, prefix or interface.
    Usage = 2,
    NoGuard = 3,
    NotPermitted = 4,
    /// The kernel lacks something: BPF, connection tracking.
    Kernel = 5,
    /// The pinned maps are another release's.
    Layout = 6,
    /// A file of the configuration cannot be used; `EX_CONFIG` of sysexits.h.
    Configuration = 78,
}

/// Prints an error as one line and gives the exit code.
pub(super) fn conclude(result: Result<Code, CliError>) -> ExitCode {
    let code = match result {
        Ok(code) => code,
        // The reader of our output has seen enough.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Code::Done
        }
        Err(error) => {
            logging::say(&format!("ctguard: {}", error.sentence()));
            error.code()
        }
    };
    logging::finish();
    ExitCode::from(code as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_exit_code() {
        let page = include_str!("../../../../docs/reference.md");
        for code in [
            Code::Done,
            Code::No,
            Code::Usage,
            Code::NoGuard,
            Code::NotPermitted,
            Code::Kernel,
            Code::Layout,
            Code::Configuration,
        ] {
            // A new code is a new row, and a new line above.
            match code {
                Code::Done
                | Code::No
                | Code::Usage
                | Code::NoGuard
                | Code::NotPermitted
                | Code::Kernel
                | Code::Layout
                | Code::Configuration => {}
            }
            let row = format!("| {} | ", code as u8);
            assert!(page.contains(&row), "docs/reference.md lacks a row that begins with {row}");
        }
    }
}
