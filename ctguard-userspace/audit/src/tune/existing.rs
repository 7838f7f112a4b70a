//! Applies lower timeouts to entries that already exist.

use super::error::TuneError;
use crate::host::{Host, Unread, sysctl_path};
use ctguard_kernel::conntrack::lower_timeouts::{TimeoutLimits, lower_timeouts};

/// Gives existing entries no more time than the timeouts allow now, and counts those that changed.
pub fn lower_existing_timeouts(host: &Host) -> Result<u64, TuneError> {
    if !host.is_this() {
        return Err(TuneError::Elsewhere);
    }
    let seconds = |name: &str| -> Result<u32, Unread> {
        let seconds = host.number(&sysctl_path(&format!("net.netfilter.nf_conntrack_{name}")))?;
        Ok(seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(u32::MAX))
    };
    let limits = TimeoutLimits {
        tcp_established: seconds("tcp_timeout_established")?,
        tcp_syn_sent: seconds("tcp_timeout_syn_sent")?,
        udp: seconds("udp_timeout_stream")?,
        generic: seconds("generic_timeout")?,
    };
    Ok(lower_timeouts(limits)?)
}
