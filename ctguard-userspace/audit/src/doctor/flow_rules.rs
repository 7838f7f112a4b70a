//! What rules do to flows, judged by where they stand: `notrack`, limits, `ct timeout` policies and
//! flowtables.

use std::collections::BTreeSet;

use ctguard_datapath::packet::protocol;
use ctguard_kernel::net::{Flowtable, Hook, Old, Rule, Ruleset, TimeoutPolicy};

use super::{
    finding::{Finding, Findings},
    guard::START_WITH_CACHE,
    uses::{RULES, SHARED_TIMEOUTS, place, read},
};
use crate::host::{Host, Unread, sysctl_path};

/// `NFPROTO_INET`, and the families that it holds.
const INET: u8 = 1;
const FAMILIES: [u8; 2] = [2, 10];
/// `NFPROTO_NETDEV`, `NFPROTO_BRIDGE`.
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;

/// Since when flowtables do not keep conntrack's entries alive (03428ca5cee9), and since when they do
/// again (53b3e60edb67), also in stable kernels.
const FORGETS_OFFLOADED: [(u32, u32); 2] = [(6, 14), (7, 2)];
const MENDED: [(u32, u32, u32); 2] = [(6, 18, 39), (7, 1, 4)];
/// Kernels that count a connection for each of its packets in one tick (d265929930e2), and since
/// when they do not (be102eb6a0e7).
const COUNTS_TWICE: [(u32, u32); 2] = [(5, 19), (6, 19)];

/// States of policies, by protocol and `CTA_TIMEOUT_…`, and their settings below `nf_conntrack_`.
const STATES: [(u8, u16, &str); 14] = [
    (protocol::TCP, 1, "tcp_timeout_syn_sent"),
    (protocol::TCP, 2, "tcp_timeout_syn_recv"),
    (protocol::TCP, TimeoutPolicy::TCP_ESTABLISHED, "tcp_timeout_established"),
    (protocol::TCP, 4, "tcp_timeout_fin_wait"),
    (protocol::TCP, 5, "tcp_timeout_close_wait"),
    (protocol::TCP, 6, "tcp_timeout_last_ack"),
    (protocol::TCP, 7, "tcp_timeout_time_wait"),
    (protocol::TCP, 8, "tcp_timeout_close"),
    (protocol::TCP, 10, "tcp_timeout_max_retrans"),
    (protocol::TCP, 11, "tcp_timeout_unacknowledged"),
    (protocol::UDP, 1, "udp_timeout"),
    (protocol::UDP, 2, "udp_timeout_stream"),
    (protocol::ICMP, 1, "icmp_timeout"),
    (protocol::ICMPV6, 1, "icmpv6_timeout"),
];

pub(super) fn check(host: &Host, rules: &Ruleset, findings: &mut Findings) {
    let release = findings.read("rules", host.release()).flatten();
    findings.add(late_notrack(rules));
    findings.add(notrack(rules, host.has_legacy("raw").unwrap_or(true)));
    findings.add(counts_all(rules, release));
    findings.add(limits_packets(rules));
    let sublevel = host.sublevel().unwrap_or(0);
    let forgets = release.is_some_and(|release| forgets_offloaded(release, sublevel));
    findings.add(rules.flowtables.iter().map(|table| flowtable(table, forgets)));
    for policy in &rules.timeouts {
        let now = |name: &str| {
            let key = format!("net.netfilter.nf_conntrack_{name}");
            host.number(&sysctl_path(&key)).ok().flatten()
        };
        findings.add(timeout_policy(policy, rules, now));
    }
}

fn has(rule: &Rule, names: &[&str]) -> bool {
    rule.expressions.iter().any(|it| names.contains(&it.as_str()))
}

fn exempting(rules: &Ruleset) -> impl Iterator<Item = (&Rule, Vec<Hook>)> {
    let exempt = rules.rules.iter().filter(|rule| has(rule, &["notrack", "NOTRACK"]));
    exempt.map(|rule| (rule, rules.hooks(rule)))
}

/// `nft_notrack_eval` leaves alone what has an entry or was exempted.
fn late_notrack(rules: &Ruleset) -> Option<Finding> {
    let late =
        |hooks: &[Hook]| !hooks.is_empty() && !hooks.iter().any(|hook| hook.is_before_conntrack());
    let (rule, hooks) = exempting(rules).find(|(_, hooks)| late(hooks))?;
    let priority = hooks.first().map_or(0, |hook| hook.priority);
    Some(
        Finding::warning("notrack-late", "a `notrack` rule does nothing")
            .read(RULES, format!("{}, priority {priority}", place(rule)))
            .because(
                "conntrack has seen the packet before. The rule must stand in prerouting or output, \
                 with a priority below -200, such as `raw`",
            ),
    )
}

/// Rules of iptables that `nf_tables` does not list (`has_legacy`) may exempt the other direction.
fn notrack(rules: &Ruleset, has_legacy: bool) -> Option<Finding> {
    let all: Vec<_> = exempting(rules).collect();
    let counts =
        |hooks: &[Hook]| hooks.is_empty() || hooks.iter().any(|hook| hook.is_before_conntrack());
    let (first, _) = all.iter().find(|(_, hooks)| counts(hooks))?;
    // A table for both families may complete one for a single family, and be about that alone.
    let is_alone = all.iter().all(|(rule, _)| rule.family == INET);
    let has_own = |family| all.iter().any(|(rule, _)| rule.family == family);
    let mut judged = FAMILIES.into_iter().filter(|family| is_alone || has_own(*family));
    let one_way = judged.find_map(|family| {
        let of_family = all.iter().filter(|(rule, _)| [INET, family].contains(&rule.family));
        let hooks = of_family.flat_map(|(_, hooks)| hooks).filter(|it| it.is_before_conntrack());
        let leaves: BTreeSet<_> = hooks.map(|hook| hook.number == Hook::OUTPUT).collect();
        (leaves.len() == 1).then(|| leaves.contains(&false))
    });
    let is_unknown = all.iter().any(|(_, hooks)| hooks.is_empty());
    let one_way = match one_way.filter(|_| !is_unknown && !has_legacy) {
        Some(true) => {
            ". They all stand in prerouting: the answers of this machine's own services pass output, \
             and create entries unless a rule there exempts them too"
        }
        Some(false) => {
            ". They all stand in output: what this machine answers has an entry from prerouting \
             already, unless a rule there exempts it too"
        }
        None => "",
    };
    let why = format!(
        "to a guard that asks conntrack, each of them looks like a new flow. {START_WITH_CACHE} \
         arrive at a guarded interface{one_way}"
    );
    let finding = Finding::note("notrack", "rules exempt packets from tracking");
    Some(finding.read(RULES, place(first)).because(why))
}

/// Expressions that tell packets of old connections from others.
const STATE: [&str; 2] = ["state", "tcp flags"];
/// As deep as the kernel lets chains call each other (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: u32 = 16;

fn of_chain<'r>(
    rules: &'r Ruleset,
    like: &'r Rule,
    chain: &'r str,
) -> impl Iterator<Item = &'r Rule> {
    let same = move |it: &&Rule| it.family == like.family && it.table == like.table;
    rules.rules.iter().filter(same).filter(move |it| it.chain == chain)
}

/// Whether a rule, or a chain to which it sends them, accepts packets of old connections.
fn ends_known(rules: &Ruleset, rule: &Rule, depth: u32) -> bool {
    const FOR_ALL: [&str; 3] = ["immediate", "counter", "comment"];
    let Some(depth) = depth.checked_sub(1) else { return false };
    if rule.old == Old::Missed {
        return false;
    }
    let jumps = rule.jumps.iter().filter(|chain| !rule.new_only_jumps.contains(chain));
    let mut called = jumps.flat_map(|chain| of_chain(rules, rule, chain));
    if has(rule, &STATE) {
        let accepts = |it: &Rule| it.old != Old::Missed && has(it, &["accept"]);
        return has(rule, &["accept", "vmap"]) || called.any(accepts);
    }
    let is_for_all = rule.expressions.iter().all(|name| FOR_ALL.contains(&name.as_str()));
    is_for_all && called.any(|it| ends_known(rules, it, depth))
}

/// Whether only packets that start a connection come to a rule, as far as rules before it tell.
fn meets_new_only(rules: &Ruleset, rule: &Rule, seen: &mut BTreeSet<String>) -> bool {
    let is_for_first = rules.base(rule, &rule.chain).is_some_and(|base| base.is_nat);
    if rule.old != Old::Met || is_for_first {
        return true;
    }
    let mut earlier = of_chain(rules, rule, &rule.chain).take_while(|it| !std::ptr::eq(*it, rule));
    let ends = |it: &Rule| {
        let leaves = has(it, &STATE) && it.old != Old::Missed && has(it, &["goto", "return"]);
        leaves || ends_known(rules, it, DEEPEST)
    };
    if earlier.any(ends) {
        return true;
    }
    if !seen.insert(rule.chain.clone()) {
        return true;
    }
    let mut callers = rules.callers(rule, &rule.chain).peekable();
    let sends_new_only = |caller: &Rule| {
        caller.new_only_jumps.contains(&rule.chain) || meets_new_only(rules, caller, seen)
    };
    callers.peek().is_some() && callers.all(sends_new_only)
}

fn counts_all(rules: &Ruleset, release: Option<(u32, u32)>) -> Option<Finding> {
    let counts = |rule: &&Rule| {
        has(rule, &["connlimit"]) && !meets_new_only(rules, rule, &mut BTreeSet::new())
    };
    let rule = rules.rules.iter().find(counts)?;
    let [from, until] = COUNTS_TWICE;
    let twice = if release.is_some_and(|release| (from..until).contains(&release)) {
        ". Kernels from 5.19 on also count a connection again for each of its packets within a timer \
         tick, unless they have a fix of December 2025"
    } else {
        ""
    };
    Some(
        Finding::note("counts-all", "a rule counts the connections of every packet")
            .because(format!(
                "a connection limit (`ct count`, connlimit) looks through its list of connections for \
                 each packet that reaches the rule, and refuses packets of old connections too. Put \
                 `{}` before it, unless an earlier rule accepts the others{twice}",
                new_only(rules, rule)
            ))
            .read(RULES, place(rule)),
    )
}

/// What lets a rule meet new connections only. Before conntrack no packet has a state; and in the family
/// bridge, a rule that asks for it makes conntrack track all that is bridged.
fn new_only(rules: &Ruleset, rule: &Rule) -> &'static str {
    let hooks = rules.hooks(rule);
    let is_unknown = hooks.is_empty() && ![NETDEV, BRIDGE].contains(&rule.family);
    let all_have_state = !hooks.is_empty() && !hooks.iter().any(|hook| hook.is_before_conntrack());
    if is_unknown || all_have_state { "ct state new" } else { "tcp flags & (syn | ack) == syn" }
}

/// Only of TCP does a packet tell whether it starts a connection.
fn limits_packets(rules: &Ruleset) -> Option<Finding> {
    let limits = |rule: &&Rule| {
        let is_meter = has(rule, &["meter", "hashlimit"]);
        let only_logs = has(rule, &["log", "LOG", "NFLOG"])
            && !has(rule, &["immediate", "reject", "REJECT", "vmap"]);
        let is_for_new = is_meter && !has(rule, &["ample"]) && !only_logs;
        is_for_new && rule.is_tcp && !meets_new_only(rules, rule, &mut BTreeSet::new())
    };
    let rule = rules.rules.iter().find(limits)?;
    Some(
        Finding::note("limits-packets", "a rule limits the packets of each TCP client")
            .read(RULES, place(rule))
            .because(format!(
                "it takes packets of established connections too, so transfers stall. To limit new \
                 connections, put `{}` before it",
                new_only(rules, rule)
            )),
    )
}

fn forgets_offloaded(release: (u32, u32), sublevel: u32) -> bool {
    let [first, end] = FORGETS_OFFLOADED;
    let is_mended = |&(major, minor, since)| release == (major, minor) && sublevel >= since;
    (first..end).contains(&release) && !MENDED.iter().any(is_mended)
}

fn flowtable(table: &Flowtable, forgets: bool) -> Finding {
    let Flowtable { table, name, devices, counts } = table;
    let mut why =
        "conntrack and rules see only the first packets of such flows; their entries have \
                   no timeout or state while they are offloaded"
            .to_owned();
    if !counts {
        why.push_str(
            ", and packet counters that stand still, so a flow that looks idle may be busy (the \
             flowtable's flag `counter` keeps them)",
        );
    }
    if forgets {
        why.push_str(
            ". In this kernel, an entry may expire under traffic once its flow is a day old, or some \
             minutes if hardware carries it, unless your distribution has taken the fix of Linux 7.2, \
             7.1.4 and 6.18.39",
        );
    }
    let devices = if devices.is_empty() { "no device".to_owned() } else { devices.join(", ") };
    Finding::note("flowtable", format!("a flowtable carries flows of {devices}"))
        .read(RULES, format!("table {table}, flowtable {name}"))
        .because(why)
}

/// `nft_ct_timeout_obj_eval` gives a policy only to a flow that has an entry, and no longer once it
/// is confirmed.
fn timeout_policy(
    policy: &TimeoutPolicy,
    rules: &Ruleset,
    now: impl Fn(&str) -> Option<u64>,
) -> Option<Finding> {
    let TimeoutPolicy { family, table, name, protocol, uses, seconds } = policy;
    let (source, at) = match table {
        Some(table) => (RULES, format!("table {table}, ct timeout {name}")),
        None => (SHARED_TIMEOUTS, name.clone()),
    };
    let useless = |why: &str| {
        let what = format!("the ct timeout policy {name} applies to nothing");
        Some(Finding::warning("timeout-policy", what).read(source, &at).because(why))
    };
    let of_table = |rule: &&Rule| rule.family == *family && Some(&rule.table) == table.as_ref();
    let named = rules.rules.iter().filter(of_table).filter(|rule| rule.timeouts.contains(name));
    let mut hooks: Vec<_> = named.map(|rule| rules.hooks(rule)).collect();
    let idle = rules.idle.iter().filter(of_table).filter(|rule| rule.timeouts.contains(name));
    let by_rules = hooks.len() + idle.count();
    let is_in_maps = uses.is_some_and(|uses| uses as usize > by_rules);
    if is_in_maps {
        let by_map = rules.rules.iter().filter(of_table).filter(|rule| rule.has_object_map);
        hooks.extend(by_map.map(|rule| rules.hooks(rule)));
    }
    if hooks.is_empty() && !is_in_maps {
        return useless(match table {
            Some(_) => {
                "no rule assigns it: `ct timeout set` is missing, in another table, or in a chain that \
                 no packet comes to"
            }
            None => "no rule assigns it (`-j CT --timeout`)",
        });
    }
    let is_early = |hooks: &Vec<Hook>| {
        !hooks.is_empty() && hooks.iter().all(|hook| hook.is_before_conntrack())
    };
    if !hooks.is_empty() && hooks.iter().all(is_early) {
        return useless(
            "its rules come before conntrack, where no flow has an entry yet. They must have a \
             priority above -200, such as `mangle`; only the target CT of iptables stands in raw",
        );
    }
    let differing = seconds.iter().filter_map(|(state, seconds)| {
        let (.., setting) = STATES.iter().find(|it| (it.0, it.1) == (*protocol, *state))?;
        let global = now(setting)?;
        (global != u64::from(*seconds)).then(|| format!("{setting} {seconds} s, not {global} s"))
    });
    let differing: Vec<_> = differing.collect();
    let what = format!("the ct timeout policy {name} gives some flows: {}", differing.join(", "));
    let finding = Finding::note("timeout-policy", what).read(source, &at);
    finding
        .because("applies to new flows that its rules match; the verdicts on timeouts are about all others")
        .when(!differing.is_empty())
}

/// What policies set for established connections.
pub(super) fn established(rules: &Ruleset) -> Vec<u32> {
    let tcp = rules.timeouts.iter().filter(|policy| policy.protocol == protocol::TCP);
    let seconds = tcp.flat_map(|policy| &policy.seconds);
    let of_state = seconds.filter(|(state, _)| *state == TimeoutPolicy::TCP_ESTABLISHED);
    of_state.map(|(_, seconds)| *seconds).collect()
}

/// The longest timeouts of policies, in seconds; 0 without any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyTimeouts {
    pub tcp_established: u32,
    pub tcp_syn_sent: u32,
    pub udp: u32,
}

/// What `ct timeout` policies give at most.
pub fn longest_timeouts(host: &Host) -> Result<PolicyTimeouts, Unread> {
    Ok(longest(&read(host)?))
}

fn longest(rules: &Ruleset) -> PolicyTimeouts {
    let of = |wanted: u8, state: Option<u16>| {
        let policies = rules.timeouts.iter().filter(|policy| policy.protocol == wanted);
        let seconds = policies.flat_map(|policy| &policy.seconds);
        let seconds = seconds.filter(|(it, _)| state.is_none_or(|state| *it == state));
        seconds.map(|(_, seconds)| *seconds).max().unwrap_or(0)
    };
    PolicyTimeouts {
        tcp_established: of(protocol::TCP, Some(TimeoutPolicy::TCP_ESTABLISHED)),
        tcp_syn_sent: of(protocol::TCP, Some(1)),
        udp: of(protocol::UDP, None),
    }
}

#[cfg(test)]
mod tests;
