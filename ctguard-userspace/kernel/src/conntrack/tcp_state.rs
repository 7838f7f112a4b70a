//! The state of a TCP entry as ctnetlink writes it (`enum ctattr_protoinfo` and
//! `enum ctattr_protoinfo_tcp`, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use netlink_packet_core::parse_u8;

use crate::net::find;

const PROTOINFO: u16 = 4;
const PROTOINFO_TCP: u16 = 1;
const STATE: u16 = 1;

/// As conntrack tracks it (`enum tcp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// An unanswered SYN, or one from each side.
    SynSent,
    /// A SYN and its answer, without the ACK.
    SynReceived,
    Established,
    /// A FIN or RST was seen.
    Closing,
}

impl TcpState {
    /// Reads it from an entry's attributes; `None` for other protocols and unknown states.
    pub fn decode(attributes: &[u8]) -> Option<Self> {
        let tcp = find(find(attributes, PROTOINFO)?, PROTOINFO_TCP)?;
        match parse_u8(find(tcp, STATE)?).ok()? {
            1 | 9 => Some(Self::SynSent),
            2 => Some(Self::SynReceived),
            3 => Some(Self::Established),
            4..=8 => Some(Self::Closing),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{attribute, emitted, nested};

    #[test]
    fn a_state_lies_two_nests_deep_behind_others() {
        let of = |state: u8| {
            let tcp = [attribute(2, &[7]), attribute(STATE, &[state]), attribute(3, &[9])];
            let info = nested(PROTOINFO, &[nested(PROTOINFO_TCP, &tcp)]);
            TcpState::decode(&emitted(&[attribute(7, &[0, 0, 1]), info]))
        };
        assert_eq!(of(1), Some(TcpState::SynSent));
        assert_eq!(of(2), Some(TcpState::SynReceived));
        assert_eq!(of(3), Some(TcpState::Established));
        assert_eq!(of(7), Some(TcpState::Closing));
        assert_eq!(of(0), None);
    }

    #[test]
    fn an_entry_of_udp_has_none() {
        assert_eq!(TcpState::decode(&emitted(&[attribute(3, &[0; 4])])), None);
        assert_eq!(TcpState::decode(&[]), None);
    }
}
