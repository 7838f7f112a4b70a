//! Checks for the capabilities that a guard needs.

use rustix::{
    process::geteuid,
    thread::{CapabilitySet, capabilities},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub capability: &'static str,
    /// The user is root, but lacks it, as in a container.
    pub root: bool,
}

/// The first missing capability; `None` if they cannot be read.
pub fn missing() -> Option<Missing> {
    let effective = capabilities(None).ok()?.effective;
    let administrator = effective.contains(CapabilitySet::SYS_ADMIN);
    let capability = if !effective.contains(CapabilitySet::NET_ADMIN) {
        "CAP_NET_ADMIN"
    } else if !administrator && !effective.contains(CapabilitySet::BPF) {
        "CAP_BPF"
    } else {
        return None;
    };
    Some(Missing { capability, root: geteuid().is_root() })
}
