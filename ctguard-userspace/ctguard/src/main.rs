//! ctguard: an early-drop guard for Linux routers and servers that track connections.
//!
//! `cli` holds a file for each verb, `daemon` runs the guard, `report` writes what people and programs
//! read. Deciding, the kernel and the audit are crates of their own.

mod cli;
mod daemon;
mod events;
mod report;
mod signals;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
