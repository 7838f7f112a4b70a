//! What commands need: the pin path, the privileges, the maps.

use std::path::PathBuf;

use super::CliError;
use ctguard_kernel::{bpf::Pins, maps::GuardMaps, privileges};

#[derive(Debug)]
pub(super) struct Context {
    pub(super) pins: Pins,
}

impl Context {
    pub(super) fn new(pin_path: Option<PathBuf>) -> Result<Self, CliError> {
        let pins = match pin_path {
            Some(path) => std::path::absolute(path).map(Pins::at),
            None => Pins::of_this_namespace(),
        };
        Ok(Self { pins: pins.map_err(CliError::cannot("find out where the guard is pinned"))? })
    }

    pub(super) fn maps(&self) -> Result<GuardMaps, CliError> {
        require_privileges()?;
        Ok(GuardMaps::open(&self.pins)?)
    }
}

/// Names what is missing before the kernel says only "not permitted".
pub(super) fn require_privileges() -> Result<(), CliError> {
    match privileges::missing() {
        Some(missing) => {
            Err(CliError::NotPermitted { missing: missing.capability, root: missing.root })
        }
        None => Ok(()),
    }
}
