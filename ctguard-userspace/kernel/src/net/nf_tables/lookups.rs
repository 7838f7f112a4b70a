//! What sets and maps add to the rules that look something up in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use rustix::net::netlink;

use super::{
    LIST_ELEMENT, Lookup, Rule,
    expressions::{Reading, chain_of, inner, verdict_of},
    old::Old,
    ruleset::{NAME, TABLE, all},
};
use crate::net::{
    attribute::{attribute, attributes, emitted, find, text},
    netlink::{NFGENMSG_LENGTH, dump},
};

/// `NFNL_SUBSYS_NFTABLES << 8` with `NFT_MSG_GETSET` and `_GETSETELEM`.
const GET_SET: u16 = 10 << 8 | 0x0a;
const GET_ELEMENTS: u16 = 10 << 8 | 0x0d;
/// `NFTA_SET_ELEM_LIST_SET`, `NFTA_SET_ELEM_LIST_ELEMENTS`, `NFTA_SET_ELEM_KEY`, `NFTA_SET_ELEM_DATA`,
/// `NFTA_DATA_VALUE`.
const MAP: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const VALUE: u16 = 1;
/// `NFTA_SET_EXPR`, `NFTA_SET_EXPRESSIONS`.
const SET_EXPRESSION: u16 = 17;
const SET_EXPRESSIONS: u16 = 18;
/// `NFT_CONTINUE`, `NFT_RETURN`.
const GOES_ON: [i32; 2] = [-1, -5];

/// An element of a set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Element {
    /// None for what no other element has.
    key: Option<Vec<u8>>,
    verdict: Option<i32>,
    chain: Option<String>,
}

/// A family, a table and the name of a set.
type SetAt = (u8, String, String);

/// Adds what sets and maps say: to which chains they send packets, whether of old connections, and what
/// they limit.
pub(super) fn follow(rules: &mut [Rule]) -> io::Result<()> {
    let limiting: BTreeMap<SetAt, Vec<Vec<u8>>> =
        all(GET_SET, set_expressions)?.into_iter().collect();
    let mut known: BTreeMap<SetAt, Vec<Element>> = BTreeMap::new();
    for rule in rules {
        for lookup in rule.lookups.clone() {
            let at = (rule.family, rule.table.clone(), lookup.set.clone());
            if let Some(expressions) = limiting.get(&at) {
                let expressions: Vec<_> = expressions.iter().map(Vec::as_slice).collect();
                Reading::of(rule).note_inner(&expressions);
            }
            if !lookup.decides && lookup.sample.is_none() {
                continue;
            }
            if !known.contains_key(&at) {
                let elements = elements(rule.family, &rule.table, &lookup.set)?;
                known.insert(at.clone(), elements);
            }
            if let Some(elements) = known.get(&at) {
                rule.look_up(&lookup, elements);
            }
        }
    }
    Ok(())
}

/// What a set does to each of its elements when a packet finds it, if anything.
fn set_expressions(family: u8, bytes: &[u8]) -> Option<(SetAt, Vec<Vec<u8>>)> {
    let expressions = inner(bytes, SET_EXPRESSION, SET_EXPRESSIONS);
    let at = (family, text(find(bytes, TABLE)?), text(find(bytes, NAME)?));
    let expressions: Vec<_> = expressions.into_iter().map(<[u8]>::to_vec).collect();
    (!expressions.is_empty()).then_some((at, expressions))
}

impl Rule {
    fn look_up(&mut self, lookup: &Lookup, elements: &[Element]) {
        let of_old = lookup.sample.as_ref().map(|sample| {
            let is_it = |it: &&Element| it.key.as_ref().is_some_and(|key| sample.is(key));
            elements.iter().find(is_it).or_else(|| elements.iter().find(|it| it.key.is_none()))
        });
        if !lookup.decides {
            self.also(
                of_old.map_or(Old::Met, |found| Old::met_if(found.is_some() != lookup.is_inverted)),
            );
            return;
        }
        let chains: BTreeSet<_> = elements.iter().filter_map(|it| it.chain.clone()).collect();
        self.jumps.extend(chains.iter().cloned());
        let Some(of_old) = of_old else { return };
        let old_chain = of_old.and_then(|it| it.chain.as_ref());
        self.new_only_jumps.extend(chains.iter().filter(|it| Some(*it) != old_chain).cloned());
        match of_old {
            None => self.also(Old::Missed),
            Some(it)
                if it.chain.is_some() || it.verdict.is_some_and(|it| GOES_ON.contains(&it)) =>
            {
                self.expressions.retain(|name| name != "vmap");
            }
            Some(_) => {}
        }
    }
}

fn elements(family: u8, table: &str, map: &str) -> io::Result<Vec<Element>> {
    let name = |kind, name: &str| attribute(kind, &[name.as_bytes(), &[0]].concat());
    let mut body = vec![family, 0, 0, 0];
    body.extend(emitted(&[name(TABLE, table), name(MAP, map)]));
    let messages = match dump(Some(netlink::NETFILTER), GET_ELEMENTS, &body) {
        // It went away with its rule.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        messages => messages?,
    };
    let lists = messages.iter().filter_map(|it| find(it.get(NFGENMSG_LENGTH..)?, ELEMENTS));
    let elements = lists.flat_map(attributes).filter(|(kind, _)| *kind == LIST_ELEMENT);
    let element = |(_, bytes): (u16, &[u8])| {
        let key = find(bytes, ELEMENT_KEY).and_then(|key| find(key, VALUE));
        let data = find(bytes, ELEMENT_DATA).unwrap_or_default();
        Element { key: key.map(<[u8]>::to_vec), verdict: verdict_of(data), chain: chain_of(data) }
    };
    Ok(elements.map(element).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::old::Sample, *};
    use crate::net::nested;

    fn element(key: &[u8], verdict: i32, chain: Option<&str>) -> Element {
        let (key, verdict) = (Some(key.to_vec()), Some(verdict));
        Element { key, verdict, chain: chain.map(str::to_owned) }
    }

    /// Fails when a map that names new connections alone is taken for one that decides about old ones.
    #[test]
    fn a_map_of_states_says_where_old_connections_go() {
        const ACCEPT: i32 = 1;
        const JUMP: i32 = -3;
        let [new, old] = [8_u32, 2].map(u32::to_ne_bytes);
        let rule = |elements: &[Element]| {
            let mut rule = Rule { expressions: vec!["vmap".to_owned()], ..Rule::default() };
            let sample = Some(Sample::of_state());
            rule.look_up(&Lookup { decides: true, sample, ..Lookup::default() }, elements);
            rule
        };
        let to_sub = element(&new, JUMP, Some("sub"));
        let both = rule(&[to_sub.clone(), element(&old, ACCEPT, None)]);
        assert_eq!((both.old, both.new_only_jumps.len()), (Old::Met, 1));
        assert_eq!(both.expressions, ["vmap"]);
        let new_only = rule(std::slice::from_ref(&to_sub));
        assert_eq!((new_only.old, new_only.jumps.len()), (Old::Missed, 1));
        let elsewhere = rule(&[to_sub, element(&old, JUMP, Some("known"))]);
        assert_eq!((elsewhere.old, elsewhere.new_only_jumps), (Old::Met, vec!["sub".to_owned()]));
        assert!(elsewhere.expressions.is_empty(), "the chain decides");
        let others = Element { verdict: Some(ACCEPT), ..Element::default() };
        assert_eq!(rule(&[element(&new, JUMP, Some("sub")), others]).old, Old::Met, "`*`");
    }

    #[test]
    fn a_set_of_states_meets_old_connections_if_it_has_them() {
        let [new, old] = [8_u32, 2].map(u32::to_ne_bytes);
        let met = |is_inverted, key: &[u8]| {
            let mut rule = Rule::default();
            let sample = Some(Sample::of_state());
            let lookup = Lookup { is_inverted, sample, ..Lookup::default() };
            rule.look_up(&lookup, &[element(key, 0, None)]);
            rule.old
        };
        assert_eq!([met(false, &old), met(false, &new)], [Old::Met, Old::Missed]);
        assert_eq!([met(true, &old), met(true, &new)], [Old::Missed, Old::Met]);
    }

    /// Fails when a limit that a set has for its elements is not seen.
    #[test]
    fn a_set_has_the_expressions_for_its_elements() {
        let limit = || nested(SET_EXPRESSION, &[attribute(1, b"limit\0"), nested(2, &[])]);
        let set = [attribute(TABLE, b"t\0"), attribute(NAME, b"clients\0"), limit()];
        let (at, expressions) = set_expressions(1, &emitted(&set)).unwrap();
        assert_eq!(at, (1, "t".to_owned(), "clients".to_owned()));
        assert!(set_expressions(1, &emitted(&set[..2])).is_none());
        let mut rule = Rule::default();
        Reading::of(&mut rule).note_inner(&[&expressions[0]]);
        assert_eq!(rule.expressions, ["limit", "meter"]);
    }
}
