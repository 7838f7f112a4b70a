//! The defaults, written here and nowhere else.

use ctguard_layout::{CLASSES, LAYOUT_VERSION, Policy, Rate};

/// The policy of a new guard.
///
/// Ceilings are for each source, and hold outside calm, where a source is not known: an IPv4 address, or an IPv6 /64. A household behind one address
/// opens a few dozen connections a second at its busiest moments, and a hundred or so at once when
/// browsers start. A host that asks for more all the time is a scanner, a flood, or a service for
/// the allow list or for an interface with a higher ceiling. UDP gets twice as much, for DNS and
/// games. ICMP and the rest have no honest use for many flows.
///
/// A target of 85 % leaves room for what arrives on interfaces without a guard.
pub const DEFAULT_POLICY: Policy = Policy {
    layout_version: LAYOUT_VERSION,
    switches: 0,
    target_ppm: 850_000,
    source: [
        Rate { flows_per_second: 50, burst: 200 },
        Rate { flows_per_second: 100, burst: 400 },
        Rate { flows_per_second: 20, burst: 50 },
    ],
    fallback_flows_per_second: 0,
    floor: [1; CLASSES],
    prefix: [Rate { flows_per_second: 0, burst: 0 }; CLASSES],
    service: [Rate { flows_per_second: 0, burst: 0 }; CLASSES],
    adaptive_ppm: [0; 2],
    // A handshake takes one round trip, and a lost SYN-ACK is repeated after 1 and 3 s.
    reclaim_after: [1, 5, 10, 10, 30, 60],
    overload_after: 0,
    overload_for: 600,
    own_ceilings: 0,
    answers_per_second: 0,
};
