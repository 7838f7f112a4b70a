//! What a developer and CI ask of this repository: one command, one file.

#![forbid(unsafe_code)]

mod bench;
mod boot;
mod clients;
mod debian;
mod docs;
mod ebpf;
mod exec;
mod kernels;
mod lab;
mod lint;
mod package;
mod packages;
mod privilege;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Ebpf(options) => ebpf::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Kernels(options) => kernels::run(&options),
        Task::Boot => boot::run(),
        Task::Lab(options) => lab::run(&options),
        Task::Clients(options) => clients::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Docs => docs::run(),
        Task::Lint => lint::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What this repository can be asked to do.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_version_flag = true)]
enum Task {
    /// Build the eBPF objects and store them where they are embedded
    Ebpf(ebpf::Options),
    /// Run every test, those that need root and a kernel included
    Test(test::Options),
    /// Try ctguard on other kernels, in virtual machines
    Kernels(kernels::Options),
    /// Prove on a Debian machine that what tune persists is there after a boot
    Boot,
    /// Show ctguard at work on a NAT router in network namespaces
    Lab(lab::Options),
    /// Let real clients make their first contact through a flooded router
    Clients(clients::Options),
    /// Measure what a packet costs
    Bench(bench::Options),
    /// Build packages for Debian and for distributions with RPM
    Package(package::Options),
    /// Make the site of the documentation
    Docs,
    /// Check formatting, clippy, dependencies and the layout of the repository
    Lint,
}
