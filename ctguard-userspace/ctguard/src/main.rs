//! ctguard: an early-drop guard for Linux routers and servers that track connections.
//!
//! `cli` has a file for each verb, `daemon` runs the guard, `report` writes the documents.

#![warn(clippy::print_stdout, clippy::print_stderr, reason = "`terminal` escapes what it writes")]

mod cli;
mod daemon;
mod events;
mod files;
mod holders;
mod report;
mod signals;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
