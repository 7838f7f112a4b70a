//! Runs the tools that the lab leans on; a failure names the command and what it said.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The tools the lab calls, each with the Debian package that holds it.
const TOOLS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];

/// Fails with the name of the first tool that is missing, and of the package to install.
pub fn require_tools() -> Result<()> {
    for (tool, package) in TOOLS {
        let mut asked = Command::new(tool);
        asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = asked.status() {
            bail!("cannot run {tool}: {error}; apt-get install {package}");
        }
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output();
    finish(&shown, &output.with_context(|| format!("cannot run {shown}"))?)
}

/// Runs a command that reads `input`.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that dies early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    finish(&shown, &child.wait_with_output().with_context(|| format!("cannot wait for {shown}"))?)
}

fn finish(shown: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
