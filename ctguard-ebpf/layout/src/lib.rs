//! Every type that the data path and userspace share through pinned maps.
//!
//! Whoever changes a size, an offset, a meaning or a map's name must also change
//! [`LAYOUT_VERSION`]; a binary refuses pinned maps of another version.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "one program without calls: the verifier follows it, and no stack frame is spent"
)]

mod capture;
mod counter;
mod detection;
mod environment;
mod grant;
mod interface;
pub mod kernel_functions;
mod limits;
mod lines;
mod list;
mod outcome;
mod policy;
pub mod shared;
pub mod units;

pub use capture::{CaptureOrder, CaptureState, Captured};
pub use counter::{CLASS_BITS, COUNTERS, Counter, Counters, NO_CLASS};
pub use detection::Detection;
pub use environment::{
    CookieKey, DaemonFacts, Environment, FLOW_KINDS, Fixed, FlowKind, HashKey, OperatorLimits,
};
pub use grant::{Allowance, Fallback, Grant, RetriedShares, TIER_SLOTS, TIERS, Tier};
pub use interface::{Ceiling, INTERFACE_PROBES, INTERFACE_SLOTS, Interface, STATIONS};
pub use limits::{Limits, Stage};
pub use lines::{
    BucketLine, FlowLine, MemoryLine, Offered, OfferedSlot, RetryLine, SourceCells, SourceLine,
};
pub use list::{FeedEntry, List, ListEntry, Refuser};
pub use outcome::{Action, Group, Outcome, Outcomes, Row, TABLE};
pub use policy::{CLASS_SLOTS, CLASSES, Class, Policy, Rate};

/// Version of everything in this module, the first word of the `policy` map.
pub const LAYOUT_VERSION: u32 = 14;

/// Names of the maps, as they are pinned; the kernel keeps 15 bytes of each.
pub mod maps {
    /// One [`super::Policy`]: what the operator set.
    pub const POLICY: &str = "policy";
    /// One [`super::Environment`]: what every packet needs.
    pub const ENVIRONMENT: &str = "environment";
    /// [`super::INTERFACE_SLOTS`] times [`super::Interface`].
    pub const INTERFACES: &str = "interfaces";
    /// One [`super::Grant`].
    pub const GRANT: &str = "grant";
    /// [`super::BucketLine`]s of the source scope.
    pub const BUCKETS_SOURCE: &str = "buckets_source";
    /// [`super::OfferedSlot`]s, one for each line of [`BUCKETS_SOURCE`].
    pub const OFFERED_SOURCE: &str = "offered_source";
    /// One [`super::Limits`]: what the controller found.
    pub const LIMITS: &str = "limits";
    /// [`super::BucketLine`]s of the prefix scope.
    pub const BUCKETS_PREFIX: &str = "buckets_prefix";
    /// [`super::BucketLine`]s of the service scope.
    pub const BUCKETS_SERVICE: &str = "buckets_service";
    /// [`super::SourceLine`]s.
    pub const SOURCES: &str = "sources";
    /// [`super::SourceCells`], one for each slot of [`SOURCES`].
    pub const SOURCE_CELLS: &str = "source_cells";
    /// [`super::RetryLine`]s of senders that were refused and may come again.
    pub const RETRIES: &str = "retries";
    /// [`super::MemoryLine`]s of tuples that answered a challenge.
    pub const ANSWERED: &str = "answered";
    /// [`super::MemoryLine`]s of sources that were sent challenge ACKs.
    pub const CHALLENGED: &str = "challenged";
    /// [`super::FlowLine`]s.
    pub const FLOW_CACHE: &str = "flow_cache";
    /// Words of the known-flows filter, two generations of them.
    pub const KNOWN_FLOWS: &str = "known_flows";
    /// [`super::Counters`], one for each CPU.
    pub const COUNTERS: &str = "counters";
    /// Packets that the deny lists refused, one number for each [`super::Refuser`] and CPU.
    pub const REFUSALS: &str = "refusals";
    /// The data path's state of each CPU; userspace does not read it.
    pub const WORKSPACE: &str = "workspace";
    /// Ring buffer that wakes the daemon when a grant is nearly spent.
    pub const WAKEUPS: &str = "wakeups";
    /// Perf event array that copies of packets are sent through, while `ctguard capture` runs.
    pub const CAPTURED: &str = "captured";
    /// [`super::CaptureState`], one for each CPU.
    pub const CAPTURE_STATE: &str = "capture_state";
    /// Allowed IPv4 prefixes ([`super::ListEntry`]).
    pub const ALLOW_V4: &str = "allow_v4";
    /// Allowed IPv6 prefixes.
    pub const ALLOW_V6: &str = "allow_v6";
    /// Denied IPv4 prefixes.
    pub const DENY_V4: &str = "deny_v4";
    /// Denied IPv6 prefixes.
    pub const DENY_V6: &str = "deny_v6";
    /// IPv4 prefixes that feeds allow ([`super::FeedEntry`]).
    pub const FEED_ALLOW_V4: &str = "feed_allow_v4";
    /// IPv6 prefixes that feeds allow.
    pub const FEED_ALLOW_V6: &str = "feed_allow_v6";
    /// IPv4 prefixes that feeds deny.
    pub const FEED_DENY_V4: &str = "feed_deny_v4";
    /// IPv6 prefixes that feeds deny.
    pub const FEED_DENY_V6: &str = "feed_deny_v6";

    /// Every map that is pinned.
    pub const PINNED: [&str; 30] = [
        POLICY,
        ENVIRONMENT,
        INTERFACES,
        GRANT,
        BUCKETS_SOURCE,
        OFFERED_SOURCE,
        LIMITS,
        BUCKETS_PREFIX,
        BUCKETS_SERVICE,
        SOURCES,
        SOURCE_CELLS,
        RETRIES,
        ANSWERED,
        CHALLENGED,
        FLOW_CACHE,
        KNOWN_FLOWS,
        COUNTERS,
        REFUSALS,
        WORKSPACE,
        WAKEUPS,
        CAPTURED,
        CAPTURE_STATE,
        ALLOW_V4,
        ALLOW_V6,
        DENY_V4,
        DENY_V6,
        FEED_ALLOW_V4,
        FEED_ALLOW_V6,
        FEED_DENY_V4,
        FEED_DENY_V6,
    ];
}

/// Names of the programs in the object, as they are pinned.
pub mod programs {
    /// XDP: judges what arrives.
    pub const INGRESS: &str = "ctguard_ingress";
    /// Traffic control, egress: remembers what leaves.
    pub const EGRESS: &str = "ctguard_egress";
    /// XDP, never attached: returns the low 32 bits of jiffies to a test run.
    pub const CLOCK: &str = "ctguard_clock";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_the_kernel() {
        let names =
            maps::PINNED.iter().chain(&[programs::INGRESS, programs::EGRESS, programs::CLOCK]);
        for name in names {
            assert!(name.len() <= 15, "{name} is cut by the kernel");
        }
    }
}
