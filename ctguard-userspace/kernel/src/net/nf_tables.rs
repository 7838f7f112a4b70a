//! The rules of nftables, and of iptables on top of it, by the names of their expressions
//! (`include/uapi/linux/netfilter/nf_tables.h`).

use std::io;

use rustix::net::netlink;

use super::{
    link::{attributes_of, text},
    netlink::request_of,
};

/// `NFNL_SUBSYS_NFTABLES << 8` with `NFT_MSG_NEWRULE` and `NFT_MSG_GETRULE`.
const NEW_RULE: u16 = 10 << 8 | 6;
const GET_RULE: u16 = 10 << 8 | 7;
/// An `nfgenmsg` of all families.
const ALL_FAMILIES: [u8; NFGENMSG_LENGTH] = [0; NFGENMSG_LENGTH];
const NFGENMSG_LENGTH: usize = 4;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_TARGET_NAME` and `NFTA_MATCH_NAME`, of extensions of iptables.
const EXTENSION_NAME: u16 = 1;

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub table: String,
    pub chain: String,
    /// Names of its expressions, such as `ct` and `masq`; an extension of iptables by its own name,
    /// such as `MASQUERADE` and `conntrack`.
    pub expressions: Vec<String>,
}

/// Every rule of this network namespace.
pub fn rules() -> io::Result<Vec<Rule>> {
    let answers = request_of(Some(netlink::NETFILTER), GET_RULE, true, &ALL_FAMILIES)?;
    let rules = answers.iter().filter(|answer| answer.kind == NEW_RULE);
    let attributes = rules.filter_map(|answer| answer.payload.get(NFGENMSG_LENGTH..));
    Ok(attributes.map(Rule::decode).collect())
}

impl Rule {
    fn decode(attributes: &[u8]) -> Self {
        let mut rule = Self::default();
        for (kind, value) in attributes_of(attributes) {
            match kind {
                RULE_TABLE => rule.table = text(value),
                RULE_CHAIN => rule.chain = text(value),
                RULE_EXPRESSIONS => {
                    let elements = attributes_of(value).filter(|(kind, _)| *kind == LIST_ELEMENT);
                    rule.expressions = elements.map(|(_, expression)| name(expression)).collect();
                }
                _ => {}
            }
        }
        rule
    }
}

fn name(expression: &[u8]) -> String {
    let find = |attributes, wanted| {
        attributes_of(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    };
    let name = find(expression, EXPRESSION_NAME).map(text).unwrap_or_default();
    let extension = || find(find(expression, EXPRESSION_DATA)?, EXTENSION_NAME).map(text);
    match name.as_str() {
        "target" | "match" => extension().unwrap_or(name),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let mut bytes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut bytes);
        bytes
    }

    fn element(name: &[u8], data: &[u8]) -> Vec<u8> {
        let parts = [attribute(EXPRESSION_NAME, name), attribute(EXPRESSION_DATA, data)];
        attribute(LIST_ELEMENT, &parts.concat())
    }

    /// Fails when a rule that iptables made is taken for one of unknown expressions.
    #[test]
    fn expressions_have_the_names_by_which_people_know_them() {
        let masquerade =
            [attribute(EXTENSION_NAME, b"MASQUERADE\0"), attribute(2, &[0; 4])].concat();
        let elements = [element(b"ct\0", &[]), element(b"target\0", &masquerade)].concat();
        let rule = [
            attribute(RULE_TABLE, b"nat\0"),
            attribute(RULE_CHAIN, b"POSTROUTING\0"),
            attribute(3, &[0; 8]),
            attribute(RULE_EXPRESSIONS, &elements),
        ];
        let rule = Rule::decode(&rule.concat());
        assert_eq!((rule.table.as_str(), rule.chain.as_str()), ("nat", "POSTROUTING"));
        assert_eq!(rule.expressions, ["ct", "MASQUERADE"]);
    }

    #[test]
    fn bytes_that_are_no_attributes_are_a_rule_without_expressions() {
        assert_eq!(Rule::decode(&[1, 2, 3]), Rule::default());
    }
}
