//! The state of a TCP entry as ctnetlink writes it (`enum ctattr_protoinfo` and
//! `enum ctattr_protoinfo_tcp`, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use netlink_packet_core::parse_u8;

use crate::net::find;

const TCP: u16 = 1;
const STATE: u16 = 1;

/// As conntrack tracks it (`enum tcp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// An unanswered SYN, or one from each side.
    SynSent,
    /// A SYN and its answer, without the ACK.
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    /// A RST was seen.
    Close,
}

impl TcpState {
    pub(super) const ALL: [Self; 8] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
    ];

    /// Reads it from the value of `CTA_PROTOINFO`; `None` for other protocols and unknown states.
    pub(super) fn decode(info: &[u8]) -> Option<Self> {
        match parse_u8(find(find(info, TCP)?, STATE)?).ok()? {
            9 => Some(Self::SynSent),
            state => Self::ALL.get(usize::from(state.checked_sub(1)?)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{attribute, emitted, nested};

    #[test]
    fn a_state_lies_a_nest_deep_behind_others() {
        let of = |state: u8| {
            let tcp = [attribute(2, &[7]), attribute(STATE, &[state]), attribute(3, &[9])];
            TcpState::decode(&emitted(&[nested(TCP, &tcp)]))
        };
        assert_eq!(
            [1, 2, 3].map(of),
            TcpState::ALL[..3].iter().map(|&it| Some(it)).collect::<Vec<_>>()[..]
        );
        assert_eq!(
            [7, 8, 9].map(of),
            [TcpState::TimeWait, TcpState::Close, TcpState::SynSent].map(Some)
        );
        assert_eq!([0, 10, 255].map(of), [None; 3]);
    }

    #[test]
    fn another_protocols_state_is_none_of_tcp() {
        assert_eq!(TcpState::decode(&emitted(&[nested(3, &[attribute(1, &[3])])])), None);
        assert_eq!(TcpState::decode(&[]), None);
    }
}
