//! The state of a TCP entry as ctnetlink writes it (`enum ctattr_protoinfo` and
//! `enum ctattr_protoinfo_tcp`, `include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use netlink_packet_core::{NlasIterator, parse_u8};

const PROTOINFO: u16 = 4;
const PROTOINFO_TCP: u16 = 1;
const STATE: u16 = 1;

/// What conntrack has seen of a connection (`enum tcp_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// A SYN that nobody answered, or one from each side.
    SynSent,
    /// A SYN that was answered, and no ACK to that.
    SynReceived,
    /// The handshake is complete.
    Established,
    /// A FIN or RST was seen.
    Closing,
}

impl TcpState {
    /// Of the attributes of an entry; none of other protocols, and of states that are none.
    pub fn decode(attributes: &[u8]) -> Option<Self> {
        let state = within(attributes, PROTOINFO, |info| {
            within(info, PROTOINFO_TCP, |tcp| within(tcp, STATE, |state| parse_u8(state).ok()))
        })?;
        match state {
            1 | 9 => Some(Self::SynSent),
            2 => Some(Self::SynReceived),
            3 => Some(Self::Established),
            4..=8 => Some(Self::Closing),
            _ => None,
        }
    }
}

/// Reads the value of the first attribute of a kind.
fn within<T>(attributes: &[u8], kind: u16, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let mut attributes = NlasIterator::new(attributes).filter_map(Result::ok);
    read(attributes.find(|attribute| attribute.kind() == kind)?.value())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::*;
    use crate::net::emitted;

    fn nested(kind: u16, value: Vec<u8>) -> Vec<u8> {
        emitted(&[DefaultNla::new(kind, value)])
    }

    #[test]
    fn a_state_lies_two_nests_deep_behind_others() {
        let of = |state: u8| {
            let tcp = emitted(&[
                DefaultNla::new(2, vec![7]),
                DefaultNla::new(STATE, vec![state]),
                DefaultNla::new(3, vec![9]),
            ]);
            let mut attributes = nested(7, vec![0, 0, 1]);
            attributes.extend(nested(PROTOINFO, nested(PROTOINFO_TCP, tcp)));
            TcpState::decode(&attributes)
        };
        assert_eq!(of(1), Some(TcpState::SynSent));
        assert_eq!(of(2), Some(TcpState::SynReceived));
        assert_eq!(of(3), Some(TcpState::Established));
        assert_eq!(of(7), Some(TcpState::Closing));
        assert_eq!(of(0), None);
    }

    #[test]
    fn an_entry_of_udp_has_none() {
        assert_eq!(TcpState::decode(&nested(3, vec![0; 4])), None);
        assert_eq!(TcpState::decode(&[]), None);
    }
}
