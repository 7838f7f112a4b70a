//! Checks for the capabilities that a guard needs, and what to say where one is missing.

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
    Some(Missing { capability, root: is_root() })
}

/// What is wrong where the kernel wants `capability`. Root lacks some in a container.
pub fn remedy(capability: &str) -> String {
    remedy_for(is_root(), capability)
}

/// Whether this process is root, with whichever capabilities.
pub fn is_root() -> bool {
    geteuid().is_root()
}

fn remedy_for(is_root: bool, capability: &str) -> String {
    if is_root {
        format!("root lacks {capability} here")
    } else {
        format!("run as root, or with {capability}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when root, in a container, is told to become root.
    #[test]
    fn root_is_told_what_is_missing_and_others_how_to_get_it() {
        assert_eq!(remedy_for(true, "CAP_SYSLOG"), "root lacks CAP_SYSLOG here");
        assert_eq!(remedy_for(false, "CAP_SYSLOG"), "run as root, or with CAP_SYSLOG");
    }
}
