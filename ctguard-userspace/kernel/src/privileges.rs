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
    let known = CapabilitySet::from_name(capability.trim_start_matches("CAP_"));
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let has_it = known.is_some_and(|capability| effective.contains(capability));
    remedy_for(is_root(), has_it, capability)
}

/// Whether this process is root, with whichever capabilities.
pub fn is_root() -> bool {
    geteuid().is_root()
}

fn remedy_for(is_root: bool, has_it: bool, capability: &str) -> String {
    match (is_root, has_it) {
        (true, true) => {
            format!("root has {capability}, but a container or a security module forbids it")
        }
        (true, false) => format!("root lacks {capability} here"),
        (false, _) => format!("run as root, or with {capability}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when root, in a container, is told to become root, or to get what it has.
    #[test]
    fn root_is_told_what_is_missing_and_others_how_to_get_it() {
        let of_root = |has_it| remedy_for(true, has_it, "CAP_SYSLOG");
        assert_eq!(of_root(false), "root lacks CAP_SYSLOG here");
        assert_eq!(
            of_root(true),
            "root has CAP_SYSLOG, but a container or a security module forbids it"
        );
        let of_another = remedy_for(false, false, "CAP_SYSLOG");
        assert_eq!(of_another, "run as root, or with CAP_SYSLOG");
    }
}
