//! Whether packets of old connections meet a rule, as far as the rule looks at conntrack's state or at
//! TCP flags.
//!
//! A register that holds either is followed for a packet of an established connection, through masks
//! and comparisons (`nft_bitwise_eval`, `nft_cmp_eval`).

use super::Rule;
use crate::net::attribute::find;

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
const ESTABLISHED: u8 = 2;
/// `TCPHDR_ACK`.
const ACK: u8 = 0x10;

/// `NFTA_BITWISE_MASK`, `_XOR`, `_OP`; `NFT_BITWISE_MASK_XOR`.
const MASK: u16 = 4;
const XOR: u16 = 5;
const BITWISE_OPERATION: u16 = 6;
const MASK_XOR: u32 = 0;
/// `NFTA_CMP_OP`, `NFTA_CMP_DATA`; `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const COMPARE_OPERATION: u16 = 2;
const COMPARE_DATA: u16 = 3;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
/// `NFTA_DATA_VALUE`.
const VALUE: u16 = 1;

/// Whether a rule matches packets of old connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Old {
    /// It does, or does not ask.
    #[default]
    Met,
    Missed,
    /// It asks in a way that is not understood.
    Unclear,
}

/// A value that a rule has read, of a packet of an old connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample(Vec<u8>);

impl Sample {
    pub(super) fn of_state() -> Self {
        Self(u32::from(ESTABLISHED).to_ne_bytes().to_vec())
    }

    pub(super) fn of_flags() -> Self {
        Self(vec![ACK])
    }

    /// Whether it is this key of a set.
    pub(super) fn is(&self, key: &[u8]) -> bool {
        key.starts_with(&self.0) && key.iter().skip(self.0.len()).all(|byte| *byte == 0)
    }

    /// None where it becomes something else than is understood.
    pub(super) fn masked(&self, bitwise: &[u8]) -> Option<Self> {
        if number(bitwise, BITWISE_OPERATION).unwrap_or(MASK_XOR) != MASK_XOR {
            return None;
        }
        let [mask, xor] = [MASK, XOR].map(|kind| find(find(bitwise, kind)?, VALUE));
        let bytes = self.0.iter().zip(mask?).zip(xor?);
        Some(Self(bytes.map(|((byte, mask), xor)| byte & mask ^ xor).collect()))
    }

    pub(super) fn compared(&self, comparison: &[u8]) -> Old {
        let value = find(comparison, COMPARE_DATA).and_then(|data| find(data, VALUE));
        let Some(value) = value else { return Old::Unclear };
        match number(comparison, COMPARE_OPERATION) {
            Some(EQUAL) => Old::met_if(self.is(value)),
            Some(UNEQUAL) => Old::met_if(!self.is(value)),
            _ => Old::Unclear,
        }
    }
}

impl Old {
    pub(super) const fn met_if(is_met: bool) -> Self {
        if is_met { Self::Met } else { Self::Missed }
    }

    /// Both of two conditions of a rule have to hold.
    pub(super) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Missed, _) | (_, Self::Missed) => Self::Missed,
            (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
            (Self::Met, Self::Met) => Self::Met,
        }
    }
}

/// `struct xt_conntrack_mtinfo3`, and `mtinfo2` and `mtinfo1`, which differ in the length of the states.
pub(super) fn of_conntrack(info: &[u8], revision: u32) -> Old {
    const FLAGS_AT: usize = 146;
    const INVERTED_AT: usize = 148;
    const STATES_AT: usize = 150;
    /// `XT_CONNTRACK_STATE`, `XT_CONNTRACK_STATUS`.
    const STATE: u16 = 1;
    const STATUS: u16 = 1 << 6;
    /// `XT_CONNTRACK_STATE_SNAT` and `XT_CONNTRACK_STATE_DNAT`.
    const TRANSLATED: u16 = 3 << 6;
    let short = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let (Some(flags), Some(inverted)) = (short(FLAGS_AT), short(INVERTED_AT)) else {
        return Old::Unclear;
    };
    if flags & STATE == 0 {
        return if flags & STATUS == 0 { Old::Met } else { Old::Unclear };
    }
    let states = match revision {
        1 => info.get(STATES_AT).copied().map(u16::from),
        _ => short(STATES_AT),
    };
    states.map_or(Old::Unclear, |states| {
        // A translated flow is in that state, too, however old it is.
        if states & u16::from(ESTABLISHED) == 0 && states & TRANSLATED != 0 {
            return Old::Unclear;
        }
        Old::met_if((states & u16::from(ESTABLISHED) != 0) != (inverted & STATE != 0))
    })
}

/// `struct xt_state_info`.
pub(super) fn of_state(info: &[u8]) -> Old {
    let states = info.first_chunk().map(|states| u32::from_ne_bytes(*states));
    states.map_or(Old::Unclear, |states| Old::met_if(states & u32::from(ESTABLISHED) != 0))
}

/// `struct xt_tcp`: mask, flags and what is inverted. None where it does not look at flags.
pub(super) fn of_tcp(info: &[u8]) -> Option<Old> {
    const MASK_AT: usize = 9;
    /// `XT_TCP_INV_FLAGS`.
    const INVERTED: u8 = 4;
    let [mask, wanted, inverted] = *info.get(MASK_AT..)?.first_chunk()?;
    let matches = (ACK & mask == wanted) != (inverted & INVERTED != 0);
    (mask != 0).then_some(Old::met_if(matches))
}

fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*find(bytes, kind)?.first_chunk()?))
}

impl Rule {
    pub(super) fn also(&mut self, old: Old) {
        self.old = self.old.and(old);
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::{
        super::{
            LIST_ELEMENT, RULE_EXPRESSIONS,
            expressions::{
                CT_KEY, EXPRESSION_DATA, EXPRESSION_NAME, EXTENSION_INFORMATION, EXTENSION_NAME,
                PAYLOAD_BASE,
            },
        },
        *,
    };
    use crate::net::{attribute, emitted, nested};

    const NEW: u8 = 8;
    const RELATED: u8 = 4;
    const SYN: u8 = 2;
    const FIN_SYN_RST_ACK: u8 = 0x17;

    fn expression(name: &str, data: &[DefaultNla]) -> DefaultNla {
        let name = attribute(EXPRESSION_NAME, format!("{name}\0").as_bytes());
        nested(LIST_ELEMENT, &[name, nested(EXPRESSION_DATA, data)])
    }

    fn be(kind: u16, number: u32) -> DefaultNla {
        attribute(kind, &number.to_be_bytes())
    }

    fn state() -> DefaultNla {
        expression("ct", &[be(1, 1), be(CT_KEY, 0)])
    }

    /// Offset 13 of the transport header, one byte.
    fn flags() -> DefaultNla {
        expression("payload", &[be(1, 1), be(PAYLOAD_BASE, 2), be(3, 13), be(4, 1)])
    }

    fn masked(mask: &[u8]) -> DefaultNla {
        let value = |kind, bytes: &[u8]| nested(kind, &[attribute(VALUE, bytes)]);
        expression("bitwise", &[value(MASK, mask), value(XOR, &vec![0; mask.len()])])
    }

    fn compared(operation: u32, value: &[u8]) -> DefaultNla {
        let value = nested(COMPARE_DATA, &[attribute(VALUE, value)]);
        expression("cmp", &[be(COMPARE_OPERATION, operation), value])
    }

    fn old(expressions: &[DefaultNla]) -> Old {
        Rule::decode(&emitted(&[nested(RULE_EXPRESSIONS, expressions)])).old
    }

    fn word(states: u8) -> [u8; 4] {
        u32::from(states).to_ne_bytes()
    }

    #[test]
    fn a_rule_meets_old_connections_unless_it_asks_for_others() {
        let asks = |states, operation| {
            old(&[state(), masked(&word(states)), compared(operation, &word(0))])
        };
        assert_eq!(asks(NEW, UNEQUAL), Old::Missed, "ct state new");
        assert_eq!(asks(NEW, EQUAL), Old::Met, "ct state != new");
        assert_eq!(asks(ESTABLISHED | RELATED, UNEQUAL), Old::Met);
        assert_eq!(asks(1, UNEQUAL), Old::Missed, "ct state invalid");
        assert_eq!(old(&[state(), compared(EQUAL, &word(ESTABLISHED))]), Old::Met);
        assert_eq!(old(&[state(), compared(9, &word(NEW))]), Old::Unclear, "an unknown operation");
        assert_eq!(old(&[state()]), Old::Unclear);
        assert_eq!(old(&[state(), flags()]), Old::Unclear, "a concatenation");
        assert_eq!(old(&[]), Old::Met);
    }

    #[test]
    fn tcp_flags_tell_the_first_packet_of_a_connection_from_later_ones() {
        let syn = [flags(), masked(&[FIN_SYN_RST_ACK]), compared(EQUAL, &[SYN])];
        assert_eq!(old(&syn), Old::Missed, "tcp flags & (fin | syn | rst | ack) == syn");
        assert_eq!(old(&[flags(), masked(&[SYN]), compared(UNEQUAL, &[0])]), Old::Missed);
        assert_eq!(old(&[flags(), masked(&[ACK]), compared(UNEQUAL, &[0])]), Old::Met);
        let not_syn = [flags(), masked(&[FIN_SYN_RST_ACK]), compared(UNEQUAL, &[SYN])];
        assert_eq!(old(&not_syn), Old::Met);
        let port = expression("payload", &[be(PAYLOAD_BASE, 2), be(3, 2), be(4, 2)]);
        assert_eq!(old(&[port, compared(EQUAL, &[0, 22])]), Old::Met);
    }

    /// `-m conntrack`, `-m state`, `-p tcp`, as iptables-nft hands them to the kernel.
    #[test]
    fn extensions_of_iptables_are_asked_the_same() {
        let extension = |name: &str, revision, info: &[u8]| {
            let name = attribute(EXTENSION_NAME, format!("{name}\0").as_bytes());
            let info = attribute(EXTENSION_INFORMATION, info);
            old(&[expression("match", &[name, be(2, revision), info])])
        };
        let conntrack = |flags: u16, inverted: u16, states: u16| {
            let mut info = [0; 164];
            for (at, value) in [(146, flags), (148, inverted), (150, states)] {
                info[at..at + 2].copy_from_slice(&value.to_ne_bytes());
            }
            extension("conntrack", 3, &info)
        };
        assert_eq!(conntrack(1, 0, u16::from(NEW)), Old::Missed);
        assert_eq!(conntrack(1, 1, u16::from(NEW)), Old::Met);
        assert_eq!(conntrack(1, 0, u16::from(ESTABLISHED | RELATED)), Old::Met);
        assert_eq!(conntrack(1, 0, 1 << 7), Old::Unclear, "--ctstate DNAT");
        assert_eq!(conntrack(1, 0, 1 << 6 | u16::from(NEW)), Old::Unclear, "--ctstate SNAT,NEW");
        assert_eq!(conntrack(1 << 3, 0, 0), Old::Met, "--ctorigdst");
        assert_eq!(conntrack(1 << 6, 0, 0), Old::Unclear, "--ctstatus");
        assert_eq!(extension("conntrack", 3, &[0; 9]), Old::Unclear, "cut short");
        assert_eq!(extension("state", 0, &word(NEW)), Old::Missed);
        assert_eq!(extension("state", 0, &word(NEW | ESTABLISHED)), Old::Met);
        let tcp = |mask, flags, inverted| {
            let mut info = [0; 12];
            info[9..].copy_from_slice(&[mask, flags, inverted]);
            extension("tcp", 0, &info)
        };
        assert_eq!(tcp(FIN_SYN_RST_ACK, SYN, 0), Old::Missed, "--syn");
        assert_eq!(tcp(FIN_SYN_RST_ACK, SYN, 4), Old::Met, "! --syn");
        assert_eq!(tcp(0, 0, 0), Old::Met);
    }
}
