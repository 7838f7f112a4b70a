//! Names the expressions of a rule, and what they read and decide
//! (`include/uapi/linux/netfilter/nf_tables.h`).

use super::{LIST_ELEMENT, Rule};
use crate::net::attribute::{attributes, find, text};

pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;
/// `NFTA_TARGET_NAME` and `NFTA_MATCH_NAME`, of iptables extensions.
pub(super) const EXTENSION_NAME: u16 = 1;
const EXTENSION_INFORMATION: u16 = 3;

/// `NFTA_META_KEY`, `NFTA_META_SREG`, keys that hand frames to this machine (`NFT_META_PKTTYPE`,
/// `NFT_META_BRI_BROUTE`), and `NFT_META_L4PROTO`.
pub(super) const META_KEY: u16 = 2;
pub(super) const META_WRITES: u16 = 3;
const META_TO_US: [u32; 2] = [19, 35];
const META_PROTOCOL: u32 = 16;
/// `NFTA_PAYLOAD_BASE`, `_OFFSET`, `_SREG`; `NFT_PAYLOAD_LL_HEADER` and the two above it.
pub(super) const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
pub(super) const PAYLOAD_WRITES: u16 = 5;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const IPV4_PROTOCOL_AT: u32 = 9;
const TCP_FLAGS_AT: u32 = 13;
/// `NFTA_CT_KEY`, `NFTA_CT_SREG`, `NFT_CT_STATE`.
const CT_KEY: u16 = 2;
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
/// `NFTA_LOOKUP_SET`, `NFTA_LOOKUP_DREG`; `NFT_REG_VERDICT` has the number 0.
const LOOKUP_SET: u16 = 1;
const LOOKUP_WRITES: u16 = 3;
/// `NFTA_LIMIT_RATE`, `_UNIT`, `_TYPE`; `NFT_LIMIT_PKT_BYTES`.
const LIMIT_RATE: u16 = 1;
const LIMIT_SECONDS: u16 = 2;
const LIMIT_TYPE: u16 = 4;
const OF_BYTES: u32 = 1;
/// A limit of so many packets per second is not meant for new connections.
const AMPLE: u64 = 1_000;
/// `NFTA_DYNSET_EXPR`, `NFTA_DYNSET_EXPRESSIONS`.
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

pub(super) fn note(rule: &mut Rule, expression: &[u8]) {
    let name = find(expression, EXPRESSION_NAME).map(text).unwrap_or_default();
    let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
    let number = |kind| Some(u32::from_be_bytes(*find(data, kind)?.first_chunk()?));
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
            let verdict = find(data, DATA_VERDICT);
            let code = verdict.and_then(|verdict| find(verdict, VERDICT_CODE)?.first_chunk());
            let decides = match code.map(|code| i32::from_be_bytes(*code)) {
                Some(ACCEPT) => Some("accept"),
                Some(GOTO) => Some("goto"),
                Some(RETURN) => Some("return"),
                _ => None,
            };
            rule.expressions.extend(decides.map(str::to_owned));
        }
        "lookup" if number(LOOKUP_WRITES) == Some(0) => {
            rule.verdict_maps.extend(find(data, LOOKUP_SET).map(text));
        }
        "objref" if find(data, OBJECT_MAP).is_some() => rule.has_object_map = true,
        "objref" if number(OBJECT_TYPE) == Some(TIMEOUT_OBJECT) => {
            rule.timeouts.extend(find(data, OBJECT_NAME).map(text));
        }
        _ => {}
    }
    let besides = match name.as_str() {
        "ct" if number(CT_KEY) == Some(CT_STATE) && !writes(CT_WRITES) => Some("state"),
        "meta" if number(META_KEY) == Some(META_PROTOCOL) => Some(PROTOCOL),
        "payload" => match (number(PAYLOAD_BASE), number(PAYLOAD_OFFSET)) {
            (Some(NETWORK_HEADER), Some(IPV4_PROTOCOL_AT)) => Some(PROTOCOL),
            (Some(TRANSPORT_HEADER), Some(TCP_FLAGS_AT)) => Some("tcp flags"),
            _ => None,
        },
        "lookup" if number(LOOKUP_WRITES) == Some(0) => Some("vmap"),
        "limit" => is_ample(data).then_some("ample"),
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
    if is_dynset {
        let inner = |kind| find(data, kind).into_iter();
        inner(DYNSET_EXPRESSION).for_each(|inner| note(rule, inner));
        let list = inner(DYNSET_EXPRESSIONS).flat_map(attributes);
        list.filter(|(kind, _)| *kind == LIST_ELEMENT).for_each(|(_, inner)| note(rule, inner));
    }
}

/// The chain that a verdict names, in an expression or in an element of a map.
pub(super) fn chain_of(data: &[u8]) -> Option<String> {
    find(find(data, DATA_VERDICT)?, VERDICT_CHAIN).map(text)
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

/// `flg_mask` of `struct xt_tcp`, as `--syn` sets it.
fn flags_of_tcp(data: &[u8]) -> Option<&'static str> {
    const MASK_AT: usize = 9;
    let is_tcp = find(data, EXTENSION_NAME).map(text).as_deref() == Some("tcp");
    let mask = find(data, EXTENSION_INFORMATION).and_then(|info| info.get(MASK_AT));
    mask.filter(|mask| is_tcp && **mask != 0).map(|_| "tcp flags")
}
