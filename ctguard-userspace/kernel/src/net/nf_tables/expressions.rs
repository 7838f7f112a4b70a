//! Names the expressions of a rule, and what they read and decide
//! (`include/uapi/linux/netfilter/nf_tables.h`).

use super::{
    LIST_ELEMENT, Lookup, Rule,
    old::{Old, Sample, of_conntrack, of_state, of_tcp},
};
use crate::net::attribute::{attributes, find, text};

pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;
/// `NFTA_TARGET_NAME` and `NFTA_MATCH_NAME`, of iptables extensions.
pub(super) const EXTENSION_NAME: u16 = 1;
const EXTENSION_REVISION: u16 = 2;
pub(super) const EXTENSION_INFORMATION: u16 = 3;

/// `NFTA_META_KEY`, `NFTA_META_SREG`, keys that hand frames to this machine (`NFT_META_PKTTYPE`,
/// `NFT_META_BRI_BROUTE`), and `NFT_META_L4PROTO`.
pub(super) const META_KEY: u16 = 2;
pub(super) const META_WRITES: u16 = 3;
const META_TO_US: [u32; 2] = [19, 35];
const META_PROTOCOL: u32 = 16;
/// `NFTA_PAYLOAD_BASE`, `_OFFSET`, `_SREG`; `NFT_PAYLOAD_LL_HEADER` and the two above it.
pub(super) const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
pub(super) const PAYLOAD_WRITES: u16 = 5;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const IPV4_PROTOCOL_AT: u32 = 9;
const TCP_FLAGS_AT: u32 = 13;
/// `NFTA_CT_KEY`, `NFTA_CT_SREG`, `NFT_CT_STATE`.
pub(super) const CT_KEY: u16 = 2;
const CT_WRITES: u16 = 4;
const CT_STATE: u32 = 0;
/// `NFTA_CMP_OP`, `NFTA_CMP_DATA`, `NFT_CMP_EQ`.
const COMPARE_OPERATION: u16 = 2;
const COMPARE_DATA: u16 = 3;
const EQUAL: u32 = 0;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// `NFTA_IMMEDIATE_DATA`, `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`, `NF_ACCEPT`, `NFT_GOTO`,
/// `NFT_RETURN`.
const IMMEDIATE_DATA: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const ACCEPT: i32 = 1;
const GOTO: i32 = -4;
const RETURN: i32 = -5;
/// `NFTA_LOOKUP_SET`, `_DREG`, `_FLAGS`, `NFT_LOOKUP_F_INV`; `NFT_REG_VERDICT` has the number 0.
const LOOKUP_SET: u16 = 1;
const LOOKUP_WRITES: u16 = 3;
const LOOKUP_FLAGS: u16 = 5;
const INVERTED: u32 = 1;
/// `NFTA_LIMIT_RATE`, `_UNIT`, `_TYPE`; `NFT_LIMIT_PKT_BYTES`.
const LIMIT_RATE: u16 = 1;
const LIMIT_SECONDS: u16 = 2;
const LIMIT_TYPE: u16 = 4;
const OF_BYTES: u32 = 1;
/// A limit of so many packets per second is not meant for new connections.
const AMPLE: u64 = 1_000;
/// `NFTA_DYNSET_SET_NAME`, `NFTA_DYNSET_EXPR`, `NFTA_DYNSET_EXPRESSIONS`.
const DYNSET_SET: u16 = 1;
const DYNSET_EXPRESSION: u16 = 7;
const DYNSET_EXPRESSIONS: u16 = 10;
/// `NFTA_OBJREF_IMM_TYPE`, `NFTA_OBJREF_IMM_NAME`, `NFTA_OBJREF_SET_NAME`.
const OBJECT_TYPE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_MAP: u16 = 4;
/// `NFT_OBJECT_CT_TIMEOUT`.
pub(super) const TIMEOUT_OBJECT: u32 = 7;
const TCP: u8 = 6;

/// Names for what rules write, which expressions have none for.
pub(super) const LINK_WRITTEN: &str = "payload @ll set";
pub(super) const HANDED_TO_US: &str = "meta set";
/// An expression that reads the protocol; a comparison follows.
const PROTOCOL: &str = "protocol";

/// A rule, as far as it was read.
pub(super) struct Reading<'r> {
    rule: &'r mut Rule,
    /// The state or the flags of a packet of an old connection, which an expression has read and none
    /// has judged so far.
    sample: Option<Sample>,
}

impl<'r> Reading<'r> {
    pub(super) const fn of(rule: &'r mut Rule) -> Self {
        Self { rule, sample: None }
    }

    pub(super) fn end(self) {
        if self.sample.is_some() {
            self.rule.also(Old::Unclear);
        }
    }

    pub(super) fn note(&mut self, expression: &[u8]) {
        let name = find(expression, EXPRESSION_NAME).map(text).unwrap_or_default();
        let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
        self.follow(&name, data);
        if let Some(inner) = note(self.rule, name, data) {
            self.note_inner(&inner);
        }
    }

    /// Expressions that are applied to each element of a set.
    pub(super) fn note_inner(&mut self, expressions: &[&[u8]]) {
        let before = self.rule.expressions.len();
        for inner in expressions {
            self.note(inner);
        }
        if self.rule.expressions.iter().skip(before).any(|name| name == "limit") {
            self.rule.expressions.push("meter".to_owned());
        }
    }

    /// Follows what the rule reads of an old connection.
    fn follow(&mut self, name: &str, data: &[u8]) {
        let number = |kind| number(data, kind);
        let sample = self.sample.take();
        match (name, sample) {
            ("bitwise", Some(sample)) => {
                self.sample = sample.masked(data);
                if self.sample.is_none() {
                    self.rule.also(Old::Unclear);
                }
            }
            ("cmp", Some(sample)) => self.rule.also(sample.compared(data)),
            ("lookup", sample) => self.rule.lookups.push(Lookup {
                set: find(data, LOOKUP_SET).map(text).unwrap_or_default(),
                is_inverted: number(LOOKUP_FLAGS).is_some_and(|flags| flags & INVERTED != 0),
                decides: number(LOOKUP_WRITES) == Some(0),
                sample,
            }),
            ("dynset", None) => {
                let set = find(data, DYNSET_SET).map(text).unwrap_or_default();
                self.rule.lookups.push(Lookup { set, ..Lookup::default() });
            }
            (_, Some(_)) => self.rule.also(Old::Unclear),
            ("ct", None) if reads_state(data) => self.sample = Some(Sample::of_state()),
            ("payload", None) if reads_flags(data) && number(PAYLOAD_LENGTH) == Some(1) => {
                self.sample = Some(Sample::of_flags());
            }
            ("match", None) => self.rule.also(of_extension(data)),
            (_, None) => {}
        }
    }
}

fn number(data: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*find(data, kind)?.first_chunk()?))
}

fn reads_state(data: &[u8]) -> bool {
    number(data, CT_KEY) == Some(CT_STATE) && find(data, CT_WRITES).is_none()
}

fn reads_flags(data: &[u8]) -> bool {
    let at = [PAYLOAD_BASE, PAYLOAD_OFFSET].map(|kind| number(data, kind));
    at == [Some(TRANSPORT_HEADER), Some(TCP_FLAGS_AT)] && find(data, PAYLOAD_WRITES).is_none()
}

/// Whether an extension of iptables meets packets of old connections.
fn of_extension(data: &[u8]) -> Old {
    let info = find(data, EXTENSION_INFORMATION).unwrap_or_default();
    match find(data, EXTENSION_NAME).map(text).as_deref() {
        Some("conntrack") => of_conntrack(info, number(data, EXTENSION_REVISION).unwrap_or(0)),
        Some("state") => of_state(info),
        Some("tcp") => of_tcp(info).unwrap_or_default(),
        _ => Old::Met,
    }
}

/// Whether a `conntrack` of iptables asks for the state.
fn asks_for_state(data: &[u8]) -> bool {
    const FLAGS_AT: usize = 146;
    /// `XT_CONNTRACK_STATE`, `XT_CONNTRACK_STATUS`.
    const ASKS: u16 = 1 | 1 << 6;
    let info = find(data, EXTENSION_INFORMATION).and_then(|info| info.get(FLAGS_AT..));
    let flags = info.and_then(|rest| rest.first_chunk());
    find(data, EXTENSION_NAME).map(text).as_deref() == Some("conntrack")
        && flags.is_none_or(|flags| u16::from_ne_bytes(*flags) & ASKS != 0)
}

/// Notes an expression; returns those that it applies to each element of a set.
fn note<'d>(rule: &mut Rule, name: String, data: &'d [u8]) -> Option<Vec<&'d [u8]>> {
    let number = |kind| number(data, kind);
    let writes = |kind| find(data, kind).is_some();
    match name.as_str() {
        "cmp" => {
            let value = find(data, COMPARE_DATA).and_then(|data| find(data, DATA_VALUE));
            let is_equal = number(COMPARE_OPERATION) == Some(EQUAL);
            let follows = rule.expressions.last().is_some_and(|last| last == PROTOCOL);
            rule.is_tcp |= follows && is_equal && value.and_then(<[u8]>::first) == Some(&TCP);
        }
        "immediate" => {
            let data = find(data, IMMEDIATE_DATA).unwrap_or_default();
            rule.jumps.extend(chain_of(data));
            let decides = match verdict_of(data) {
                Some(ACCEPT) => Some("accept"),
                Some(GOTO) => Some("goto"),
                Some(RETURN) => Some("return"),
                _ => None,
            };
            rule.expressions.extend(decides.map(str::to_owned));
        }
        "objref" if find(data, OBJECT_MAP).is_some() => rule.has_object_map = true,
        "objref" if number(OBJECT_TYPE) == Some(TIMEOUT_OBJECT) => {
            rule.timeouts.extend(find(data, OBJECT_NAME).map(text));
        }
        _ => {}
    }
    let besides = match name.as_str() {
        "ct" if reads_state(data) => Some("state"),
        "meta" if number(META_KEY) == Some(META_PROTOCOL) => Some(PROTOCOL),
        "payload" => match (number(PAYLOAD_BASE), number(PAYLOAD_OFFSET)) {
            (Some(NETWORK_HEADER), Some(IPV4_PROTOCOL_AT)) => Some(PROTOCOL),
            _ if reads_flags(data) => Some("tcp flags"),
            _ => None,
        },
        "lookup" if number(LOOKUP_WRITES) == Some(0) => Some("vmap"),
        "limit" => is_ample(data).then_some("ample"),
        "match" if asks_for_state(data) => Some("state"),
        "match" => flags_of_tcp(data).or_else(|| is_ample_hashlimit(data).then_some("ample")),
        _ => None,
    };
    let extension = || find(data, EXTENSION_NAME).map(text);
    let name = match name.as_str() {
        "payload" if writes(PAYLOAD_WRITES) && number(PAYLOAD_BASE) == Some(LINK_HEADER) => {
            LINK_WRITTEN.to_owned()
        }
        "meta"
            if writes(META_WRITES)
                && number(META_KEY).is_some_and(|key| META_TO_US.contains(&key)) =>
        {
            HANDED_TO_US.to_owned()
        }
        "target" if extension().as_deref() == Some("CT") && is_notrack(data) => {
            "notrack".to_owned()
        }
        "target" | "match" => extension().unwrap_or(name),
        _ => name,
    };
    rule.is_tcp |= name == "tcp";
    let is_dynset = name == "dynset";
    rule.expressions.push(name);
    rule.expressions.extend(besides.map(str::to_owned));
    is_dynset.then(|| inner(data, DYNSET_EXPRESSION, DYNSET_EXPRESSIONS))
}

/// The expressions of a set or of a rule that fills one: a single one, or a list.
pub(super) fn inner(data: &[u8], single: u16, list: u16) -> Vec<&[u8]> {
    let of_list = find(data, list).into_iter().flat_map(attributes);
    let of_list = of_list.filter(|(kind, _)| *kind == LIST_ELEMENT).map(|(_, inner)| inner);
    find(data, single).into_iter().chain(of_list).collect()
}

/// The chain that a verdict names, in an expression or in an element of a map.
pub(super) fn chain_of(data: &[u8]) -> Option<String> {
    find(find(data, DATA_VERDICT)?, VERDICT_CHAIN).map(text)
}

pub(super) fn verdict_of(data: &[u8]) -> Option<i32> {
    let code = find(find(data, DATA_VERDICT)?, VERDICT_CODE)?.first_chunk();
    code.map(|code| i32::from_be_bytes(*code))
}

fn is_ample(limit: &[u8]) -> bool {
    let long = |kind| Some(u64::from_be_bytes(*find(limit, kind)?.first_chunk()?));
    let kind = find(limit, LIMIT_TYPE).and_then(|kind| kind.first_chunk());
    let rate = long(LIMIT_RATE).zip(long(LIMIT_SECONDS));
    kind.map(|kind| u32::from_be_bytes(*kind)) == Some(OF_BYTES)
        || rate.is_some_and(|(packets, seconds)| packets >= AMPLE.saturating_mul(seconds))
}

/// `struct xt_hashlimit_mtinfo3`: its average is the time between packets.
fn is_ample_hashlimit(data: &[u8]) -> bool {
    const AVERAGE_AT: usize = 256;
    const MODE_AT: usize = 272;
    const BYTES: u32 = 32;
    const SECOND: u64 = 1_000_000;
    let is_it = find(data, EXTENSION_NAME).map(text).as_deref() == Some("hashlimit");
    let info = find(data, EXTENSION_INFORMATION).filter(|_| is_it).unwrap_or_default();
    let average = info.get(AVERAGE_AT..).and_then(|rest| rest.first_chunk());
    let mode = info.get(MODE_AT..).and_then(|rest| rest.first_chunk());
    mode.is_some_and(|mode| u32::from_ne_bytes(*mode) & BYTES != 0)
        || average.is_some_and(|average| u64::from_ne_bytes(*average) <= SECOND / AMPLE)
}

/// `XT_CT_NOTRACK` in the flags with which `struct xt_ct_target_info` begins.
fn is_notrack(target: &[u8]) -> bool {
    let flags = find(target, EXTENSION_INFORMATION).and_then(|info| info.first_chunk());
    flags.is_some_and(|flags| u16::from_ne_bytes(*flags) & 1 != 0)
}

/// As `--syn` asks for them.
fn flags_of_tcp(data: &[u8]) -> Option<&'static str> {
    let is_tcp = find(data, EXTENSION_NAME).map(text).as_deref() == Some("tcp");
    let info = find(data, EXTENSION_INFORMATION).filter(|_| is_tcp)?;
    of_tcp(info).map(|_| "tcp flags")
}
