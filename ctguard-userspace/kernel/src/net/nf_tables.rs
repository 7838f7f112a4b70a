//! Lists the rules of nftables and of iptables on top of it, with the names of their expressions
//! (`include/uapi/linux/netfilter/nf_tables.h`).

use std::io;

use rustix::net::netlink;

use super::{
    attribute::{attributes, find, text},
    netlink::{NFGENMSG_LENGTH, dump},
};

/// `NFNL_SUBSYS_NFTABLES << 8` with `NFT_MSG_GETRULE`.
const GET_RULE: u16 = 10 << 8 | 7;
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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub table: String,
    pub chain: String,
    /// Names such as `ct` and `masq`; for iptables extensions such as `MASQUERADE` and `conntrack`.
    pub expressions: Vec<String>,
}

pub fn rules() -> io::Result<Vec<Rule>> {
    let rules = dump(Some(netlink::NETFILTER), GET_RULE, &ALL_FAMILIES)?;
    let attributes = rules.iter().filter_map(|rule| rule.get(NFGENMSG_LENGTH..));
    Ok(attributes.map(Rule::decode).collect())
}

impl Rule {
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

fn name(expression: &[u8]) -> String {
    let name = find(expression, EXPRESSION_NAME).map(text).unwrap_or_default();
    let extension = || find(find(expression, EXPRESSION_DATA)?, EXTENSION_NAME).map(text);
    match name.as_str() {
        "target" | "match" => extension().unwrap_or(name),
        _ => name,
    }
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

    #[test]
    fn bytes_that_are_no_attributes_are_a_rule_without_expressions() {
        assert_eq!(Rule::decode(&[1, 2, 3]), Rule::default());
    }
}
