//! Applies lowered timeouts to entries that exist already.
//!
//! A lower timeout applies to an entry from its next packet on; an idle entry keeps its old deadline,
//! which only `nf_ct_refresh_acct` changes. Entries are changed by original tuple and zone
//! (`ctnetlink_change_timeout`). An entry that has replaced the one that was read gets no more time
//! than it may have anyway.

use std::{io, ops::ControlFlow};

use ctguard_datapath::packet::protocol;
use thiserror::Error;

use super::{
    Entry, TcpState,
    batch::Batch,
    dump::{DumpError, read_table},
    key::Key,
};

/// Protocols with their own timeouts (`nf_ct_l4proto_find`, `net/netfilter/nf_conntrack_proto.c`).
const KNOWN: [u8; 8] = [
    protocol::TCP,
    protocol::UDP,
    protocol::ICMP,
    protocol::ICMPV6,
    protocol::GRE,
    protocol::SCTP,
    protocol::DCCP,
    protocol::UDPLITE,
];

/// The most time that entries may have left, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutLimits {
    pub tcp_established: u32,
    pub tcp_syn_sent: u32,
    pub udp: u32,
    /// For protocols that conntrack does not know.
    pub generic: u32,
}

impl TimeoutLimits {
    fn of(self, entry: &Entry) -> Option<u32> {
        match (entry.protocol, entry.tcp_state) {
            (protocol::TCP, Some(TcpState::Established)) => Some(self.tcp_established),
            (protocol::TCP, Some(TcpState::SynSent)) => Some(self.tcp_syn_sent),
            (protocol::UDP, _) => Some(self.udp),
            (known, _) if KNOWN.contains(&known) => None,
            _ => Some(self.generic),
        }
    }
}

#[derive(Debug, Error)]
pub enum LowerTimeoutsError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error("cannot shorten the lives of entries")]
    Change(#[source] io::Error),
}

/// Returns the number of entries changed.
///
/// Blocks for a pass over the table.
pub fn lower_timeouts(limits: TimeoutLimits) -> Result<u64, LowerTimeoutsError> {
    let mut batch = Batch::open().map_err(LowerTimeoutsError::Change)?;
    let mut added = Ok(());
    read_table(&mut |entry, attributes| {
        if let Some(seconds) = limits.of(entry)
            && entry.timeout_seconds.is_some_and(|left| left > seconds)
            && let Some(key) = Key::of(entry, attributes)
        {
            added = batch.add(key.change_of_timeout(seconds));
        }
        if added.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let sent = added.and_then(|()| batch.finish()).map_err(LowerTimeoutsError::Change)?;
    Ok(sent.done)
}

#[cfg(test)]
mod tests {
    use ctguard_datapath::packet::protocol::{TCP, UDP};

    use super::*;
    use crate::conntrack::{
        dump,
        testing::{TestTable, Wanted, count, fill, status},
    };

    /// Encapsulated payload (RFC 4303), which conntrack does not know.
    const ESP: u8 = 50;
    const SERVER: (&str, u16) = ("198.51.100.1", 443);
    const LIMITS: TimeoutLimits =
        TimeoutLimits { tcp_established: 7440, tcp_syn_sent: 60, udp: 120, generic: 100 };

    /// Fails when a life is shortened too far, or one that was short is made longer.
    #[test]
    fn only_lives_that_are_too_long_become_as_long_as_they_may_be() {
        let test = "only_lives_that_are_too_long_become";
        let Some(table) = TestTable::make(test) else { return };
        let udp = |port, seconds| Wanted {
            seconds,
            ..Wanted::new(UDP, ("192.0.2.1", port), SERVER, status::REPLIED)
        };
        let other_zone = Wanted { zone: 7, ..udp(1003, 9000) };
        let v6 = Wanted {
            seconds: 9000,
            ..Wanted::new(UDP, ("2001:db8::5", 1004), ("2001:db8::1", 443), status::REPLIED)
        };
        // Made over ctnetlink, a connection has no state of its own.
        let tcp = Wanted {
            seconds: 9000,
            ..Wanted::new(TCP, ("192.0.2.1", 1005), SERVER, status::ASSURED)
        };
        let esp = Wanted {
            seconds: 9000,
            ..Wanted::new(ESP, ("192.0.2.1", 0), ("198.51.100.1", 0), status::REPLIED)
        };
        table.run(|| {
            fill([udp(1001, 9000), udp(1002, 50), other_zone, v6, tcp, esp].into_iter());
            assert_eq!(lower_timeouts(LIMITS).unwrap(), 4);
            let mut left = Vec::new();
            dump(|entry| left.push((entry.original.key >> 16, entry.timeout_seconds.unwrap())))
                .unwrap();
            left.sort_unstable();
            let near = |seconds: u32, wanted: u32| seconds.abs_diff(wanted) <= 5;
            for ((port, seconds), wanted) in left.into_iter().zip([100, 120, 50, 120, 120, 9000]) {
                assert!(near(seconds, wanted), "{port}: {seconds} s");
            }
            assert_eq!((lower_timeouts(LIMITS).unwrap(), count()), (0, 6));
        });
    }
}
