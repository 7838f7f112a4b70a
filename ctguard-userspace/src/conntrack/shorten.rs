//! Shortens what is left of entries' lives to what their timeouts are now.
//!
//! A timeout that is lowered holds for an entry from its next packet on; an idle one keeps its old
//! deadline (`nf_ct_refresh_acct` sets it, and nothing else). An entry is changed by its original
//! tuple and zone (`ctnetlink_change_timeout`); one that came in its place since is given no longer
//! life than it may have anyway.

use std::{io, ops::ControlFlow};

use ctguard_ebpf::packet::protocol;
use netlink_packet_core::{DefaultNla, NLM_F_REQUEST, NlasIterator};
use thiserror::Error;

use super::{
    Entry, TcpState,
    batch::Batch,
    dump::{DumpError, dump_with_attributes},
    message::message,
};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`, which changes an entry that is there.
const CHANGE: u16 = 0x100;
/// `CTA_TUPLE_ORIG`, `CTA_TIMEOUT`, `CTA_ZONE`; `NLA_F_NESTED`.
const ORIGINAL: u16 = 1;
const TIMEOUT: u16 = 7;
const ZONE: u16 = 18;
const NESTED: u16 = 1 << 15;

/// The longest that entries of a kind may still live, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Longest {
    pub(crate) tcp_established: u32,
    pub(crate) tcp_syn_sent: u32,
    pub(crate) udp: u32,
}

impl Longest {
    fn of(self, entry: &Entry, state: Option<TcpState>) -> Option<u32> {
        match (entry.protocol, state) {
            (protocol::TCP, Some(TcpState::Established)) => Some(self.tcp_established),
            (protocol::TCP, Some(TcpState::SynSent)) => Some(self.tcp_syn_sent),
            (protocol::UDP, _) => Some(self.udp),
            _ => None,
        }
    }
}

/// Why lives are as long as before.
#[derive(Debug, Error)]
pub(crate) enum ShortenError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error("cannot shorten the lives of entries")]
    Change(#[source] io::Error),
}

/// Shortens every life that is longer; how many.
///
/// Blocks for a pass over the table.
pub(crate) fn shorten(longest: Longest) -> Result<u64, ShortenError> {
    let mut batch = Batch::open().map_err(ShortenError::Change)?;
    let (mut shortened, mut failure) = (0, None);
    dump_with_attributes(|entry, attributes| {
        let Some(seconds) = longest.of(entry, TcpState::decode(attributes)) else {
            return ControlFlow::Continue(());
        };
        if entry.timeout_seconds.is_none_or(|left| left <= seconds) {
            return ControlFlow::Continue(());
        }
        let Some(message) = change(entry, attributes, seconds) else {
            return ControlFlow::Continue(());
        };
        if batch.add(message) {
            match batch.send() {
                Ok(sent) => shortened += sent.done,
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    let last = match failure {
        Some(error) => Err(error),
        None => batch.send(),
    };
    Ok(shortened + last.map_err(ShortenError::Change)?.done)
}

fn change(entry: &Entry, attributes: &[u8], seconds: u32) -> Option<Vec<u8>> {
    let (mut original, mut zone) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            ORIGINAL => original = Some(DefaultNla::new(ORIGINAL | NESTED, value.to_vec())),
            ZONE => zone = Some(DefaultNla::new(ZONE, value.to_vec())),
            _ => {}
        }
    }
    let family = if entry.original.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let timeout = DefaultNla::new(TIMEOUT, seconds.to_be_bytes().to_vec());
    let attributes: Vec<_> = [original?, timeout].into_iter().chain(zone).collect();
    Some(message(CHANGE, NLM_F_REQUEST, u8::try_from(family).ok()?, &attributes))
}

#[cfg(test)]
mod tests {
    use ctguard_ebpf::packet::protocol::{TCP, UDP};

    use super::*;
    use crate::conntrack::{
        dump,
        testing::{TestTable, Wanted, count, fill, status},
    };

    const SERVER: (&str, u16) = ("198.51.100.1", 443);
    const LONGEST: Longest = Longest { tcp_established: 7440, tcp_syn_sent: 60, udp: 120 };

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
        table.run(|| {
            fill([udp(1001, 9000), udp(1002, 50), other_zone, v6, tcp].into_iter());
            assert_eq!(shorten(LONGEST).unwrap(), 3);
            let mut left = Vec::new();
            dump(|entry| left.push((entry.original.key >> 16, entry.timeout_seconds.unwrap())))
                .unwrap();
            left.sort_unstable();
            let near = |seconds: u32, wanted: u32| seconds.abs_diff(wanted) <= 5;
            for ((port, seconds), wanted) in left.into_iter().zip([120, 50, 120, 120, 9000]) {
                assert!(near(seconds, wanted), "{port}: {seconds} s");
            }
            assert_eq!((shorten(LONGEST).unwrap(), count()), (0, 5));
        });
    }
}
