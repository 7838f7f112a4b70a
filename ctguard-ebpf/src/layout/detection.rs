//! How the data path tells a new flow from a known one, and why not otherwise.

/// What answers whether conntrack knows the flow of a TCP or UDP packet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Conntrack itself (`bpf_xdp_ct_lookup`).
    Conntrack = 0,
    /// The flow cache: the operator wants it so.
    Forced = 1,
    /// The flow cache: this kernel tells of no such function (older than 5.18, or without BTF).
    FunctionsMissing = 2,
    /// The flow cache: the kernel refuses the program that calls the function.
    Refused = 3,
}

impl Detection {
    /// The detection of this number; none for a number of a later version.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Conntrack),
            1 => Some(Self::Forced),
            2 => Some(Self::FunctionsMissing),
            3 => Some(Self::Refused),
            _ => None,
        }
    }
}
