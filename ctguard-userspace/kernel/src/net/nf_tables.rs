//! Lists the rules of nftables and of iptables on top of it, with the names of their expressions
//! (`include/uapi/linux/netfilter/nf_tables.h`).

use std::io;

use rustix::net::netlink;

use self::{
    expressions::{HANDED_TO_US, LINK_WRITTEN, Reading},
    old::Sample,
};
use super::{
    attribute::{attributes, find, text},
    netlink::{NFGENMSG_LENGTH, dump, request},
};
use crate::modules::{Part, Presence};

mod expressions;
mod lookups;
mod old;
mod ruleset;

pub use old::Old;
pub use ruleset::{Chain, Flowtable, Hook, Ruleset, TimeoutPolicy, shared_timeouts};

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

/// `NFTA_GEN_ID`.
const GENERATION: u16 = 1;

/// `NFPROTO_BRIDGE`.
const BRIDGE: u8 = 7;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `NFPROTO_…`.
    pub family: u8,
    pub table: String,
    pub chain: String,
    /// Names such as `ct` and `masq`; for iptables extensions such as `MASQUERADE` and `conntrack`.
    /// Those of a `dynset` follow it, or of the set that it names, and what an expression reads or
    /// decides: `state`, `tcp flags`, `vmap`, `accept`, `goto`, `return`, `meter` for a limit of each
    /// element of a set, and `ample` for limits of bytes or of many packets.
    pub expressions: Vec<String>,
    /// Whether it meets packets of old connections, as far as it looks at states and TCP flags.
    pub old: Old,
    /// Chains of the same table to which it may send packets.
    pub jumps: Vec<String>,
    /// Those of them to which it sends none of old connections.
    pub new_only_jumps: Vec<String>,
    /// Sets and maps of the same table in which it looks something up.
    pub lookups: Vec<Lookup>,
    /// `ct timeout` policies of the same table that it gives to flows.
    pub timeouts: Vec<String>,
    /// Whether it takes policies, or other objects, from a map.
    pub has_object_map: bool,
    /// Whether it meets TCP alone.
    pub is_tcp: bool,
}

/// A set or map in which a rule looks something up, or which it fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    set: String,
    is_inverted: bool,
    /// Its elements are verdicts.
    decides: bool,
    /// What it looks up for a packet of an old connection, if it is a state or TCP flags.
    sample: Option<Sample>,
}

pub fn rules() -> io::Result<Vec<Rule>> {
    let rules = dump(Some(netlink::NETFILTER), GET_RULE, &ALL_FAMILIES)?;
    Ok(rules.iter().filter_map(|rule| Rule::parse(rule)).collect())
}

/// Rises with each change of the rules; `None` without `nf_tables`, which this does not load.
pub(super) fn generation() -> io::Result<Option<u32>> {
    match Part::NfTables.presence() {
        Presence::Askable => {}
        Presence::Absent => return Ok(None),
        Presence::Unknown => {
            return Err(io::Error::other("asking for them might load the module nf_tables"));
        }
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
                    let mut reading = Reading::of(&mut rule);
                    let elements = attributes(value).filter(|(kind, _)| *kind == LIST_ELEMENT);
                    elements.for_each(|(_, expression)| reading.note(expression));
                    reading.end();
                }
                _ => {}
            }
        }
        rule
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;

    use super::{
        expressions::{
            EXPRESSION_DATA, EXPRESSION_NAME, EXTENSION_NAME, META_KEY, META_WRITES, PAYLOAD_BASE,
            PAYLOAD_WRITES,
        },
        *,
    };
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
        let broute = [number(META_KEY, 35), number(META_WRITES, 1)];
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

    #[test]
    fn a_damaged_rule_is_no_crash() {
        let number = |kind, number: u32| attribute(kind, &number.to_be_bytes());
        let target = [attribute(EXTENSION_NAME, b"CT\0"), attribute(3, &[1, 0, 0, 0])];
        let elements = [
            element(b"ct\0", &[number(1, 1), number(expressions::CT_KEY, 0)]),
            element(b"meta\0", &[number(META_KEY, 35), number(META_WRITES, 1)]),
            element(b"payload\0", &[number(PAYLOAD_BASE, 2), number(3, 13), number(4, 1)]),
            element(
                b"bitwise\0",
                &[nested(4, &[attribute(1, &[2])]), nested(5, &[attribute(1, &[0])])],
            ),
            element(b"cmp\0", &[number(2, 0), nested(3, &[attribute(1, &[2])])]),
            element(b"target\0", &target),
        ];
        let rule = [
            attribute(RULE_TABLE, b"t\0"),
            attribute(RULE_CHAIN, b"c\0"),
            nested(RULE_EXPRESSIONS, &elements),
        ];
        let rule = [&[2, 0, 0, 0][..], &emitted(&rule)].concat();
        ctguard_damage::survives!(&[&rule], |bytes: &[u8]| drop(Rule::parse(bytes)));
    }
}
