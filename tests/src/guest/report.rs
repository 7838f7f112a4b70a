//! What the host reads, line by line, from the machine's second serial port:
//!
//! - `step NAME`, and when it has ended `ok` or `failed REASON`;
//! - `fact NAME VALUE`, within a step;
//! - `done`, after the last.

use std::{
    fmt::Display,
    fs::{File, OpenOptions},
    io::Write as _,
};

use anyhow::{Context as _, Result};

use super::steps::Step;

/// The kernel's own messages go to the first.
const PORT: &str = "/dev/ttyS1";

/// The way to the host.
#[derive(Debug)]
pub(super) struct Report {
    port: File,
}

impl Report {
    pub(super) fn open() -> Result<Self> {
        let port = OpenOptions::new().write(true).open(PORT);
        Ok(Self { port: port.with_context(|| format!("cannot open {PORT}"))? })
    }

    /// Runs one step; its failure is for the host to judge.
    pub(super) fn run(&mut self, step: &Step) -> Result<()> {
        self.line(&format!("step {}", step.name))?;
        match (step.run)(self) {
            Ok(()) => self.line("ok"),
            Err(error) => self.line(&format!("failed {}", one_line(&format!("{error:#}")))),
        }
    }

    /// Tells something that was found out.
    pub(super) fn fact(&mut self, name: &str, value: impl Display) -> Result<()> {
        self.line(&format!("fact {name} {value}"))
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        self.line("done")
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.port, "{line}").with_context(|| format!("cannot write to {PORT}"))
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_takes_one_line_whatever_a_command_wrote() {
        assert_eq!(one_line("`nft` failed:\n  no such\tfile\n"), "`nft` failed: no such file");
    }
}
