//! What the daemon writes for a tier.

/// What the daemon writes for one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierGrant {
    /// G.
    pub limit: u64,
    /// Admissions at which the daemon wants to be woken.
    pub wake_at: u64,
}
