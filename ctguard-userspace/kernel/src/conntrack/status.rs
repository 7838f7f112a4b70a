//! Bits of an entry's status (`IPS_*`, `include/uapi/linux/netfilter/nf_conntrack_common.h`).

/// `IPS_EXPECTED`: a helper expected the connection.
pub const EXPECTED: u32 = 1;
/// `IPS_SEEN_REPLY`: packets were seen in both directions.
pub const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_ASSURED`: `early_drop` spares it.
pub const ASSURED: u32 = 1 << 2;
/// `IPS_SRC_NAT`.
pub const SOURCE_NAT: u32 = 1 << 4;
/// `IPS_OFFLOAD` and `IPS_HW_OFFLOAD`: its packets bypass conntrack.
pub const OFFLOADED: u32 = 1 << 14 | 1 << 15;
