//! ctguard: an early-drop guard for Linux routers and servers that track connections.
//!
//! `cli` has a file for each verb, `daemon` runs the guard, `report` writes the documents.

#![warn(clippy::print_stdout, clippy::print_stderr, reason = "`terminal` escapes what it writes")]

mod cli;
mod config;
mod daemon;
mod event_file;
mod events;
mod feeds;
mod files;
mod foreign;
mod holders;
mod incidents;
mod interfaces;
mod log_fields;
mod metrics;
mod pcapng;
mod plural;
mod report;
mod sentence;
mod services;
mod signals;
mod tally;
mod terminal;
mod top;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
