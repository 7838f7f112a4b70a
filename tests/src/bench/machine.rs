//! On what kind of machine, and when.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::exec;

/// The kind of this machine, and today.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) cpus: usize,
    /// A virtual machine's times are less steady.
    pub(super) is_virtual: bool,
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Result<Self> {
        let text = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let field = |name: &str| {
            let mut lines = text.lines().filter(|line| line.starts_with(name));
            lines.next().and_then(|line| line.split_once(": ")).map(|(_, value)| value)
        };
        Ok(Self {
            date: exec::run(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processor: field("model name").unwrap_or("an unknown processor").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            is_virtual: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
        })
    }
}
