//! `cargo xtask lint`: what can be told from the sources alone.

mod docs;
mod layout;
mod lines;
mod paths;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{ebpf, exec, workspace};

/// Runs every check, and fails after the first that does.
pub(crate) fn run() -> Result<ExitCode> {
    eprintln!("xtask: layout of the repository");
    let files = files()?;
    layout::check(&files)?;
    lines::tell(&files)?;

    eprintln!("xtask: stored eBPF objects are of these sources");
    ebpf::fail_if_stale()?;

    eprintln!("xtask: files and dependencies that the docs name");
    docs::check(&files)?;

    eprintln!("xtask: paths of this machine");
    paths::check()?;

    eprintln!("xtask: formatting");
    exec::run(exec::cargo()?.args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;

    eprintln!("xtask: clippy");
    let mut clippy = exec::cargo()?;
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    exec::run(&mut clippy).context("clippy's advice above wants to be followed")?;

    if exec::find("cargo-deny").is_some() {
        eprintln!("xtask: licences and sources of dependencies");
        let mut deny = exec::cargo()?;
        deny.args(["deny", "--workspace", "check", "bans", "licenses", "sources"]);
        exec::run(&mut deny).context("deny.toml says what a dependency may be")?;
    } else {
        eprintln!("xtask: left out licences of dependencies: cargo-deny is not installed");
    }
    Ok(ExitCode::SUCCESS)
}

/// The files git knows, or would with the next commit.
fn files() -> Result<Vec<String>> {
    let listing =
        exec::output(git()?.args(["ls-files", "--cached", "--others", "--exclude-standard"]))
            .context("the layout can only be checked in a git checkout")?;
    Ok(listing.lines().map(str::to_owned).collect())
}

fn git() -> Result<Command> {
    let mut git = Command::new("git");
    // A checkout may be another user's when this runs as root.
    git.current_dir(workspace::root()?).args(["-c", "safe.directory=*"]);
    Ok(git)
}
