//! What rules stand in: chains with their hooks, verdict maps, `ct timeout` policies and flowtables
//! (`include/uapi/linux/netfilter/nf_tables.h`, `nfnetlink_cttimeout.h`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use rustix::net::netlink;

use super::{ALL_FAMILIES, LIST_ELEMENT, Rule, expressions::TIMEOUT_OBJECT, lookups, rules};
use crate::net::{
    attribute::{attributes, find, text},
    netlink::{NFGENMSG_LENGTH, dump},
};

/// `NFNL_SUBSYS_NFTABLES << 8` with `NFT_MSG_GETTABLE`, `_GETCHAIN`, `_GETOBJ` and `_GETFLOWTABLE`.
const GET_TABLE: u16 = 10 << 8 | 1;
const GET_CHAIN: u16 = 10 << 8 | 4;
const GET_OBJECT: u16 = 10 << 8 | 0x13;
const GET_FLOWTABLE: u16 = 10 << 8 | 0x17;
/// `NFNL_SUBSYS_CTNETLINK_TIMEOUT << 8` with `IPCTNL_MSG_TIMEOUT_GET`.
const GET_SHARED_TIMEOUT: u16 = 8 << 8 | 1;
/// `NFTA_TABLE_FLAGS`, `NFT_TABLE_F_DORMANT`.
const TABLE_FLAGS: u16 = 2;
const DORMANT: u32 = 1;
/// `NFTA_CHAIN_TABLE`; tables, objects and flowtables have the same number.
pub(super) const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
/// `NFTA_OBJ_NAME`, `NFTA_FLOWTABLE_NAME`.
pub(super) const NAME: u16 = 2;
/// `NFTA_HOOK_HOOKNUM`, `NFTA_HOOK_PRIORITY`, `NFTA_FLOWTABLE_HOOK_DEVS`, `NFTA_DEVICE_NAME`.
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICES: u16 = 3;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const OBJECT_USES: u16 = 5;
/// `NFTA_CT_TIMEOUT_L4PROTO`, `NFTA_CT_TIMEOUT_DATA`.
const POLICY_PROTOCOL: u16 = 2;
const POLICY_SECONDS: u16 = 3;
/// `CTA_TIMEOUT_NAME`, `_L3PROTO`, `_L4PROTO`, `_DATA`, `_USE`.
const SHARED_NAME: u16 = 1;
const SHARED_FAMILY: u16 = 2;
const SHARED_PROTOCOL: u16 = 3;
const SHARED_SECONDS: u16 = 4;
const SHARED_USES: u16 = 5;
const FLOWTABLE_HOOK: u16 = 3;
const FLOWTABLE_FLAGS: u16 = 7;
/// `NFT_FLOWTABLE_COUNTER`.
const COUNTS: u32 = 2;
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const WITH_CONNTRACK: [u8; 3] = [1, 2, 10];

/// The rules of this network namespace and what they stand in.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub rules: Vec<Rule>,
    /// Rules that no packet comes to: no other leads to their chain, or their table is dormant.
    pub idle: Vec<Rule>,
    /// Base chains that the kernel calls.
    pub chains: Vec<Chain>,
    pub timeouts: Vec<TimeoutPolicy>,
    pub flowtables: Vec<Flowtable>,
}

/// A base chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// `NFPROTO_…`.
    pub family: u8,
    pub table: String,
    pub name: String,
    pub hook: Hook,
    /// Of the type `nat`: only the first packet of each flow comes to it.
    pub is_nat: bool,
}

/// Where the kernel calls a chain: `NF_INET_…`, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    pub number: u32,
    pub priority: i32,
}

impl Hook {
    pub const PREROUTING: u32 = 0;
    pub const OUTPUT: u32 = 3;
    /// `NF_INET_INGRESS`: of the family inet, before prerouting.
    pub const INGRESS: u32 = 5;
    /// `NF_IP_PRI_CONNTRACK`.
    const CONNTRACK: i32 = -200;

    /// Whether conntrack looks at a packet later.
    pub fn is_before_conntrack(self) -> bool {
        match self.number {
            Self::PREROUTING | Self::OUTPUT => self.priority < Self::CONNTRACK,
            number => number == Self::INGRESS,
        }
    }
}

/// A `ct timeout` object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeoutPolicy {
    /// `NFPROTO_…`.
    pub family: u8,
    /// `None` if it belongs to no table: the target CT of iptables assigns it.
    pub table: Option<String>,
    pub name: String,
    pub protocol: u8,
    /// Rules and elements of maps that assign it.
    pub uses: Option<u32>,
    /// Timeouts of all states, by `CTA_TIMEOUT_TCP_…` and the like.
    pub seconds: Vec<(u16, u32)>,
}

impl TimeoutPolicy {
    /// `CTA_TIMEOUT_TCP_ESTABLISHED`.
    pub const TCP_ESTABLISHED: u16 = 3;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flowtable {
    pub table: String,
    pub name: String,
    pub devices: Vec<String>,
    /// Whether entries count the packets that it carries.
    pub counts: bool,
}

impl Ruleset {
    pub fn read() -> io::Result<Self> {
        let mut rules = rules()?;
        lookups::follow(&mut rules)?;
        let dormant: BTreeSet<_> = all(GET_TABLE, dormant_table)?.into_iter().collect();
        let mut chains = all(GET_CHAIN, Chain::parse)?;
        chains.retain(|chain| !dormant.contains(&(chain.family, chain.table.clone())));
        let (rules, idle) = by_use(rules, &chains);
        Ok(Self {
            rules,
            idle,
            chains,
            timeouts: all(GET_OBJECT, TimeoutPolicy::parse)?,
            flowtables: all(GET_FLOWTABLE, Flowtable::parse)?,
        })
    }

    /// Also those that no packet comes to, which conntrack tracks for all the same (`nf_ct_netns_get`).
    pub fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(&self.idle)
    }

    /// The hooks from which packets come to a rule, through chains that jump to its own; empty if
    /// none do, or if that is unknown.
    pub fn hooks(&self, rule: &Rule) -> Vec<Hook> {
        let mut found = Vec::new();
        if !WITH_CONNTRACK.contains(&rule.family) {
            return found;
        }
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![rule.chain.as_str()]);
        while let Some(chain) = waiting.pop() {
            if !seen.insert(chain) {
                continue;
            }
            match self.base(rule, chain) {
                Some(base) if found.contains(&base.hook) => {}
                Some(base) => found.push(base.hook),
                None => waiting.extend(self.callers(rule, chain).map(|it| it.chain.as_str())),
            }
        }
        found
    }

    /// The base chain of this name in a rule's table, if there is one.
    pub fn base(&self, rule: &Rule, chain: &str) -> Option<&Chain> {
        let is_same = |family, table: &str| family == rule.family && table == rule.table;
        self.chains.iter().find(|it| is_same(it.family, &it.table) && it.name == chain)
    }

    /// The rules of the same table as `rule` that may send packets to `chain`.
    pub fn callers<'r>(&'r self, rule: &'r Rule, chain: &'r str) -> impl Iterator<Item = &'r Rule> {
        let same = move |it: &&Rule| it.family == rule.family && it.table == rule.table;
        let jumps = move |it: &&Rule| it.jumps.iter().any(|jump| jump == chain);
        self.rules.iter().filter(move |it| same(it) && jumps(it))
    }
}

/// Policies that `nfct timeout add` made. Asking loads the module `nfnetlink_cttimeout`.
pub fn shared_timeouts() -> io::Result<Vec<TimeoutPolicy>> {
    all(GET_SHARED_TIMEOUT, |_, bytes| TimeoutPolicy::parse_shared(bytes))
}

/// Rules in chains that the kernel calls, or to which such rules lead; and all others.
fn by_use(rules: Vec<Rule>, bases: &[Chain]) -> (Vec<Rule>, Vec<Rule>) {
    type At<'r> = (u8, &'r str, &'r str);
    let mut jumps: BTreeMap<At<'_>, Vec<&str>> = BTreeMap::new();
    for rule in &rules {
        let of_chain = jumps.entry((rule.family, &rule.table, &rule.chain)).or_default();
        of_chain.extend(rule.jumps.iter().map(String::as_str));
    }
    let base = |chain: &Chain| (chain.family, chain.table.clone(), chain.name.clone());
    let mut waiting: Vec<_> = bases.iter().map(base).collect();
    let mut used = BTreeSet::new();
    while let Some(at) = waiting.pop() {
        let (family, table, chain) = &at;
        if !used.contains(&at) {
            let next = jumps.get(&(*family, table.as_str(), chain.as_str())).into_iter().flatten();
            waiting.extend(next.map(|next| (*family, table.clone(), (*next).to_owned())));
            used.insert(at);
        }
    }
    let is_used =
        |rule: &Rule| used.contains(&(rule.family, rule.table.clone(), rule.chain.clone()));
    rules.into_iter().partition(is_used)
}

fn dormant_table(family: u8, bytes: &[u8]) -> Option<(u8, String)> {
    let is_dormant = number(bytes, TABLE_FLAGS)? & DORMANT != 0;
    is_dormant.then_some((family, text(find(bytes, TABLE)?)))
}

pub(super) fn all<T>(kind: u16, parse: fn(u8, &[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    let messages = match dump(Some(netlink::NETFILTER), kind, &ALL_FAMILIES) {
        Ok(messages) => messages,
        // An older kernel has no such thing.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let parsed = messages.iter().filter_map(|message| {
        let (header, attributes) = message.split_at_checked(NFGENMSG_LENGTH)?;
        parse(*header.first()?, attributes)
    });
    Ok(parsed.collect())
}

fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*find(bytes, kind)?.first_chunk()?))
}

fn seconds(states: &[u8]) -> Vec<(u16, u32)> {
    let states = attributes(states);
    states
        .filter_map(|(state, value)| Some((state, u32::from_be_bytes(*value.first_chunk()?))))
        .collect()
}

impl Chain {
    fn parse(family: u8, bytes: &[u8]) -> Option<Self> {
        let hook = find(bytes, CHAIN_HOOK)?;
        let hook = Hook {
            number: number(hook, HOOK_NUMBER)?,
            priority: number(hook, HOOK_PRIORITY)?.cast_signed(),
        };
        let (table, name) = (text(find(bytes, TABLE)?), text(find(bytes, CHAIN_NAME)?));
        let is_nat = find(bytes, CHAIN_TYPE).map(text).as_deref() == Some("nat");
        Some(Self { family, table, name, hook, is_nat })
    }
}

impl TimeoutPolicy {
    fn parse(family: u8, bytes: &[u8]) -> Option<Self> {
        if number(bytes, OBJECT_TYPE)? != TIMEOUT_OBJECT {
            return None;
        }
        let data = find(bytes, OBJECT_DATA)?;
        Some(Self {
            family,
            table: Some(text(find(bytes, TABLE)?)),
            name: text(find(bytes, NAME)?),
            protocol: *find(data, POLICY_PROTOCOL)?.first()?,
            uses: number(bytes, OBJECT_USES),
            seconds: seconds(find(data, POLICY_SECONDS)?),
        })
    }

    fn parse_shared(bytes: &[u8]) -> Option<Self> {
        let [_, family] = *find(bytes, SHARED_FAMILY)?.first_chunk()?;
        Some(Self {
            family,
            table: None,
            name: text(find(bytes, SHARED_NAME)?),
            protocol: *find(bytes, SHARED_PROTOCOL)?.first()?,
            // The list of policies counts as one.
            uses: number(bytes, SHARED_USES).map(|uses| uses.saturating_sub(1)),
            seconds: seconds(find(bytes, SHARED_SECONDS)?),
        })
    }
}

impl Flowtable {
    fn parse(_: u8, bytes: &[u8]) -> Option<Self> {
        let devices = find(bytes, FLOWTABLE_HOOK).and_then(|hook| find(hook, HOOK_DEVICES));
        let devices = devices.into_iter().flat_map(attributes);
        Some(Self {
            table: text(find(bytes, TABLE)?),
            name: text(find(bytes, NAME)?),
            devices: devices
                .filter(|(kind, _)| *kind == LIST_ELEMENT)
                .map(|(_, name)| text(name))
                .collect(),
            counts: number(bytes, FLOWTABLE_FLAGS).is_some_and(|flags| flags & COUNTS != 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{attribute, emitted, nested};

    fn chain(name: &str, hook: Hook) -> Chain {
        Chain { family: 1, table: "t".to_owned(), name: name.to_owned(), hook, is_nat: false }
    }

    fn rule(chain: &str, jumps: &[&str]) -> Rule {
        Rule {
            family: 1,
            table: "t".to_owned(),
            chain: chain.to_owned(),
            jumps: jumps.iter().map(|name| (*name).to_owned()).collect(),
            ..Rule::default()
        }
    }

    #[test]
    fn a_rule_stands_in_the_hooks_of_all_chains_that_lead_to_it() {
        let raw = Hook { number: Hook::PREROUTING, priority: -300 };
        let out = Hook { number: Hook::OUTPUT, priority: 0 };
        let ruleset = Ruleset {
            rules: vec![rule("a", &["c"]), rule("b", &["c"]), rule("c", &["d"]), rule("d", &["c"])],
            chains: vec![chain("a", raw), chain("b", out)],
            ..Ruleset::default()
        };
        assert_eq!(ruleset.hooks(&rule("d", &[])), [out, raw]);
        assert_eq!(ruleset.hooks(&rule("nobody", &[])), []);
        assert!(raw.is_before_conntrack() && !out.is_before_conntrack());
        assert!(!Hook { number: 2, priority: -300 }.is_before_conntrack(), "forward");
        assert!(Hook { number: Hook::INGRESS, priority: 0 }.is_before_conntrack());
    }

    #[test]
    fn rules_that_no_base_chain_leads_to_are_idle() {
        let rules =
            vec![rule("in", &["one"]), rule("one", &["in"]), rule("x", &["y"]), rule("y", &["x"])];
        let (used, idle) = by_use(rules.clone(), &[chain("in", Hook::default())]);
        let chains = |rules: Vec<Rule>| rules.into_iter().map(|it| it.chain).collect::<Vec<_>>();
        assert_eq!((chains(used), chains(idle)), (names(&["in", "one"]), names(&["x", "y"])));
        let other_family = Chain { family: 2, ..chain("in", Hook::default()) };
        assert_eq!(by_use(rules, &[other_family]).0, []);
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Fails when policies that iptables assigns are not read, or their list counts as a rule.
    #[test]
    fn a_policy_of_no_table_has_its_timeouts_and_users() {
        let policy = |uses: u32| {
            TimeoutPolicy::parse_shared(&emitted(&[
                attribute(SHARED_NAME, b"dns\0"),
                attribute(SHARED_FAMILY, &[0, 2]),
                attribute(SHARED_PROTOCOL, &[17]),
                nested(SHARED_SECONDS, &[attribute(1, &[0, 0, 0, 7]), attribute(2, &[0, 0, 1, 0])]),
                attribute(SHARED_USES, &uses.to_be_bytes()),
            ]))
        };
        let expected = TimeoutPolicy {
            family: 2,
            table: None,
            name: "dns".to_owned(),
            protocol: 17,
            uses: Some(0),
            seconds: vec![(1, 7), (2, 256)],
        };
        assert_eq!(policy(1), Some(expected));
        assert_eq!(policy(3).and_then(|it| it.uses), Some(2));
    }

    #[test]
    fn a_flowtable_has_its_devices_and_says_whether_it_counts() {
        let devices = nested(HOOK_DEVICES, &[attribute(1, b"lan0\0"), attribute(1, b"wan0\0")]);
        let parts = |flags: u32| {
            emitted(&[
                attribute(TABLE, b"t\0"),
                attribute(NAME, b"f\0"),
                nested(FLOWTABLE_HOOK, std::slice::from_ref(&devices)),
                attribute(FLOWTABLE_FLAGS, &flags.to_be_bytes()),
            ])
        };
        let found = Flowtable::parse(1, &parts(2)).unwrap();
        assert_eq!(found.devices, ["lan0", "wan0"]);
        assert!(found.counts && !Flowtable::parse(1, &parts(1)).unwrap().counts);
    }

    #[test]
    fn damaged_chains_flowtables_and_policies_are_no_crash() {
        let hook = [
            attribute(HOOK_NUMBER, &[0, 0, 0, 1]),
            attribute(HOOK_PRIORITY, &[0xff; 4]),
            nested(HOOK_DEVICES, &[attribute(1, b"lan0\0")]),
        ];
        let named = [attribute(TABLE, b"t\0"), attribute(NAME, b"f\0")];
        let chain = emitted(&[&named[..], &[nested(CHAIN_HOOK, &hook)]].concat());
        let flowtable = emitted(&[&named[..], &[nested(FLOWTABLE_HOOK, &hook)]].concat());
        let seconds = nested(SHARED_SECONDS, &[attribute(1, &[0, 0, 0, 7])]);
        let policy = emitted(&[
            attribute(SHARED_NAME, b"dns\0"),
            attribute(SHARED_FAMILY, &[0, 2]),
            attribute(SHARED_PROTOCOL, &[17]),
            seconds,
            attribute(SHARED_USES, &[0; 4]),
        ]);
        ctguard_damage::survives!(&[&chain, &flowtable, &policy], |bytes: &[u8]| {
            let _ = Chain::parse(2, bytes);
            let _ = Flowtable::parse(2, bytes);
            let _ = TimeoutPolicy::parse(2, bytes);
            let _ = TimeoutPolicy::parse_shared(bytes);
            let _ = dormant_table(2, bytes);
        });
    }
}
