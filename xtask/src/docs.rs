//! `cargo xtask docs`: the documentation as a site in `target/book`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{exec, workspace};

/// Builds the program, which tells its own help, and the site.
pub(crate) fn run() -> Result<ExitCode> {
    exec::run(exec::cargo()?.args(["build", "--package", "ctguard", "--package", "ctguard-book"]))?;
    let (built, out) = (workspace::target()?.join("debug"), workspace::target()?.join("book"));
    workspace::remove_directory(&out)?;
    let mut book = Command::new(built.join("ctguard-book"));
    book.arg(built.join("ctguard")).arg(workspace::root()?.join("docs")).arg(&out);
    exec::run_quietly(&mut book)?;
    println!("{}", out.join("site/index.html").display());
    Ok(ExitCode::SUCCESS)
}
