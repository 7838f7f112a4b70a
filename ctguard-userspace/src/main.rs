//! ctguard: an early-drop guard for Linux routers and servers that track connections.
//!
//! `cli` holds a file for each verb; `daemon` runs the guard, `bpf` puts it into the kernel, `maps`
//! is what they all share with it, `control` decides and knows neither, so that `simulation` runs it
//! as well. `doctor` audits what `host` reads and `tune` mends it, with or without a guard.

mod bpf;
mod cli;
mod conntrack;
mod control;
mod daemon;
mod doctor;
mod durable;
mod events;
mod host;
mod lock;
mod maps;
mod namespace;
mod net;
mod privileges;
mod report;
mod run_directory;
mod settings;
mod signals;
mod simulation;
#[cfg(test)]
mod testing;
mod tune;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
