//! Lists the rules of nftables and of iptables on top of it, with the names of their expressions
//! (`include/uapi/linux/netfilter/nf_tables.h`).

use std::{io, path::Path};

use rustix::net::netlink;

use super::{
    attribute::{attributes, find, text},
    netlink::{NFGENMSG_LENGTH, dump, request},
};

/// `NFNL_SUBSYS_NFTABLES << 8` with `NFT_MSG_GETRULE`.
const GET_RULE: u16 = 10 << 8 | 7;
/// The same with `NFT_MSG_GETGEN`.
const GET_GENERATION: u16 = 10 << 8 | 16;
/// An `nfgenmsg` for all families.
const ALL_FAMILIES: [u8; NFGENMSG_LENGTH] = [0; NFGENMSG_LENGTH];

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_TARGET_NAME` and `NFTA_MATCH_NAME`, of iptables extensions.
const EXTENSION_NAME: u16 = 1;

/// `NFTA_GEN_ID`.
const GENERATION: u16 = 1;

/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;
/// `NFTA_PAYLOAD_BASE`, `NFT_PAYLOAD_LL_HEADER`, `NFTA_PAYLOAD_SREG`.
const PAYLOAD_BASE: u16 = 2;
const LINK_HEADER: u32 = 0;
const PAYLOAD_WRITES: u16 = 5;
/// `NFTA_META_KEY`, `NFTA_META_SREG`, and keys that hand frames to this machine:
/// `NFT_META_PKTTYPE`, `NFT_META_BRI_BROUTE`.
const META_KEY: u16 = 2;
const META_WRITES: u16 = 3;
const META_TO_US: [u32; 2] = [19, 36];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `NFPROTO_…`.
    pub family: u8,
    pub table: String,
    pub chain: String,
    /// Names such as `ct` and `masq`; for iptables extensions such as `MASQUERADE` and `conntrack`.
    pub expressions: Vec<String>,
}

pub fn rules() -> io::Result<Vec<Rule>> {
    let rules = dump(Some(netlink::NETFILTER), GET_RULE, &ALL_FAMILIES)?;
    Ok(rules.iter().filter_map(|rule| Rule::parse(rule)).collect())
}

/// Rises with each change of the rules; `None` without `nf_tables`, which this does not load: conntrack
/// has a number of users only where it is a module.
pub(super) fn generation() -> io::Result<Option<u32>> {
    let is_there = |module: &str| Path::new("/sys/module").join(module).exists();
    if !is_there("nf_tables") && is_there("nf_conntrack/refcnt") {
        return Ok(None);
    }
    match request(Some(netlink::NETFILTER), GET_GENERATION, &ALL_FAMILIES) {
        Ok(answers) => {
            let answer = answers.first().and_then(|answer| answer.get(NFGENMSG_LENGTH..));
            let id = answer.and_then(|answer| find(answer, GENERATION)?.first_chunk());
            Ok(id.map(|bytes| u32::from_be_bytes(*bytes)))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Rule {
    fn parse(message: &[u8]) -> Option<Self> {
        let (header, attributes) = message.split_at_checked(NFGENMSG_LENGTH)?;
        Some(Self { family: *header.first()?, ..Self::decode(attributes) })
    }

    /// Whether it exempts packets from tracking (`notrack`, `-j CT --notrack`).
    pub(super) fn exempts(&self) -> bool {
        self.expressions.iter().any(|it| matches!(it.as_str(), "notrack" | "NOTRACK"))
    }

    /// Whether it makes conntrack see frames that cross a bridge (`nf_ct_netns_get`), or hands such
    /// frames to this machine, which may then track them.
    pub(super) fn tracks_bridged(&self) -> bool {
        const ACTIONS: [&str; 6] =
            ["ct", "connlimit", "redirect", "dnat", LINK_WRITTEN, HANDED_TO_US];
        self.family == BRIDGE && self.expressions.iter().any(|it| ACTIONS.contains(&it.as_str()))
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut rule = Self::default();
        for (kind, value) in attributes(bytes) {
            match kind {
                RULE_TABLE => rule.table = text(value),
                RULE_CHAIN => rule.chain = text(value),
                RULE_EXPRESSIONS => {
                    let elements = attributes(value).filter(|(kind, _)| *kind == LIST_ELEMENT);
                    rule.expressions = elements.map(|(_, expression)| name(expression)).collect();
                }
                _ => {}
            }
        }
        rule
    }
}

/// Names for what rules write, which expressions have none for.
const LINK_WRITTEN: &str = "payload @ll set";
const HANDED_TO_US: &str = "meta set";

fn name(expression: &[u8]) -> String {
    let name = find(expression, EXPRESSION_NAME).map(text).unwrap_or_default();
    let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
    let extension = || find(data, EXTENSION_NAME).map(text);
    let number = |kind| Some(u32::from_be_bytes(*find(data, kind)?.first_chunk()?));
    match name.as_str() {
        "payload"
            if find(data, PAYLOAD_WRITES).is_some()
                && number(PAYLOAD_BASE) == Some(LINK_HEADER) =>
        {
            LINK_WRITTEN.to_owned()
        }
        "meta"
            if find(data, META_WRITES).is_some()
                && number(META_KEY).is_some_and(|key| META_TO_US.contains(&key)) =>
        {
            HANDED_TO_US.to_owned()
        }
        "target" if extension().as_deref() == Some("CT") && is_notrack(data) => {
            "notrack".to_owned()
        }
        "target" | "match" => extension().unwrap_or(name),
        _ => name,
    }
}

/// `XT_CT_NOTRACK` in the flags with which `struct xt_ct_target_info` begins.
fn is_notrack(target: &[u8]) -> bool {
    const INFORMATION: u16 = 3;
    let flags = find(target, INFORMATION).and_then(|info| info.first_chunk());
    flags.is_some_and(|flags| u16::from_ne_bytes(*flags) & 1 != 0)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::*;
    use crate::net::{attribute, emitted, nested};

    fn element(name: &[u8], data: &[DefaultNla]) -> DefaultNla {
        let parts = [attribute(EXPRESSION_NAME, name), nested(EXPRESSION_DATA, data)];
        nested(LIST_ELEMENT, &parts)
    }

    /// Fails when a rule that iptables made is taken for one of unknown expressions.
    #[test]
    fn expressions_have_the_names_by_which_people_know_them() {
        let masquerade = [attribute(EXTENSION_NAME, b"MASQUERADE\0"), attribute(2, &[0; 4])];
        let elements = [element(b"ct\0", &[]), element(b"target\0", &masquerade)];
        let rule = [
            attribute(RULE_TABLE, b"nat\0"),
            attribute(RULE_CHAIN, b"POSTROUTING\0"),
            attribute(3, &[0; 8]),
            nested(RULE_EXPRESSIONS, &elements),
        ];
        let rule = Rule::decode(&emitted(&rule));
        assert_eq!((rule.table.as_str(), rule.chain.as_str()), ("nat", "POSTROUTING"));
        assert_eq!(rule.expressions, ["ct", "MASQUERADE"]);
    }

    /// Fails when a rule of the family bridge that does nothing to conntrack is taken for one that does.
    #[test]
    fn only_rules_that_track_or_redirect_bridged_frames_are_told_so() {
        let rule = |family: u8, expression: DefaultNla| {
            let attributes = emitted(&[nested(RULE_EXPRESSIONS, &[expression])]);
            Rule::parse(&[&[family, 0, 0, 0], attributes.as_slice()].concat()).unwrap()
        };
        let number = |kind, number: u32| attribute(kind, &number.to_be_bytes());
        let meta = |data: &[DefaultNla]| element(b"meta\0", data);
        assert!(rule(BRIDGE, element(b"ct\0", &[])).tracks_bridged());
        assert!(!rule(2, element(b"ct\0", &[])).tracks_bridged(), "of the family ip");
        let broute = [number(META_KEY, 36), number(META_WRITES, 1)];
        assert!(rule(BRIDGE, meta(&broute)).tracks_bridged());
        assert!(!rule(BRIDGE, meta(&broute[..1])).tracks_bridged(), "it reads");
        let mark = [number(META_KEY, 3), number(META_WRITES, 1)];
        assert!(!rule(BRIDGE, meta(&mark)).tracks_bridged());
        let written = |base| [number(PAYLOAD_BASE, base), number(PAYLOAD_WRITES, 1)];
        assert!(rule(BRIDGE, element(b"payload\0", &written(0))).tracks_bridged());
        assert!(!rule(BRIDGE, element(b"payload\0", &written(1))).tracks_bridged());
    }

    /// Fails when a rule for a helper or a zone is taken for one that exempts.
    #[test]
    fn a_rule_that_exempts_packets_from_tracking_is_told_from_one_that_only_sets_how() {
        let rule = |expression: DefaultNla| {
            Rule::decode(&emitted(&[nested(RULE_EXPRESSIONS, &[expression])]))
        };
        let target = |flags: u16| {
            let info = [flags.to_ne_bytes(), [0; 2]].concat();
            element(b"target\0", &[attribute(EXTENSION_NAME, b"CT\0"), attribute(3, &info)])
        };
        assert!(rule(element(b"notrack\0", &[])).exempts() && rule(target(1)).exempts());
        assert!(!rule(target(2)).exempts());
        assert_eq!(rule(target(2)).expressions, ["CT"]);
    }

    #[test]
    fn bytes_that_are_no_attributes_are_a_rule_without_expressions() {
        assert_eq!(Rule::decode(&[1, 2, 3]), Rule::default());
    }
}
