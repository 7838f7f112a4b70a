//! Tries the built `ctguard` on another kernel: the only process of a virtual machine, which
//! `cargo xtask kernels` starts.

mod detach;
mod detection;
mod machine;
mod nat;
mod pinned;
mod report;
mod router;
mod start;
mod steps;
mod suite;
mod traffic;
mod vlan;

use std::convert::Infallible;

use anyhow::{Result, ensure};

use report::Report;

/// Runs every step, tells what became of it, and powers the machine off.
pub fn run() -> Result<Infallible> {
    ensure!(std::process::id() == 1, "this is the init of a machine of `cargo xtask kernels`");
    let told = machine::prepare().and_then(|()| Report::open()).and_then(|mut report| {
        steps::ALL.iter().try_for_each(|step| report.run(step))?;
        report.finish()
    });
    if let Err(error) = told {
        // Nothing but the console is left.
        eprintln!("ctguard-guest: {error:#}");
    }
    machine::power_off()
}
