//! Whether this runs as root, and how it becomes root where it doesn't.

use std::process::Command;

use anyhow::{Result, bail};

use crate::exec;

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs `program` as root, or `None` where there is no way to.
pub(crate) fn as_root(program: &str) -> Option<Command> {
    if is_root() {
        return Some(Command::new(program));
    }
    let mut sudo = Command::new(exec::find("sudo")?);
    sudo.arg(program);
    Some(sudo)
}

/// Refuses to go on without root.
pub(crate) fn require_root(task: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "`cargo xtask {task}` makes network namespaces and loads eBPF: \
             run it with sudo, as `sudo -E env \"PATH=$PATH\" cargo xtask {task}`"
        );
    }
    Ok(())
}
