use ctguard_kernel::net::Chain;

use super::*;

fn rule(chain: &str, expressions: &[&str]) -> Rule {
    Rule {
        family: INET,
        table: "t".to_owned(),
        chain: chain.to_owned(),
        expressions: expressions.iter().map(|name| (*name).to_owned()).collect(),
        ..Rule::default()
    }
}

/// A rule that asks for new connections alone.
fn for_new(chain: &str, expressions: &[&str]) -> Rule {
    Rule { old: Old::Missed, ..rule(chain, expressions) }
}

/// A ruleset whose chains are all at these hooks and priorities.
fn ruleset(chains: &[(&str, u32, i32)], rules: Vec<Rule>) -> Ruleset {
    let chain = |&(name, number, priority): &(&str, u32, i32)| Chain {
        family: INET,
        table: "t".to_owned(),
        name: name.to_owned(),
        hook: Hook { number, priority },
        is_nat: false,
    };
    Ruleset { rules, chains: chains.iter().map(chain).collect(), ..Ruleset::default() }
}

const RAW: [(&str, u32, i32); 2] = [("a", Hook::PREROUTING, -300), ("b", Hook::OUTPUT, -300)];

/// Fails when two chains of one hook are taken for both directions, or names decide.
#[test]
fn rules_for_one_direction_are_told_by_their_hooks() {
    let exempt = |chains: &[(&str, u32, i32)]| {
        let rules = ruleset(chains, vec![rule("a", &["notrack"]), rule("b", &["notrack"])]);
        notrack(&rules, false).unwrap().why
    };
    assert!(!exempt(&RAW).contains("They all"));
    let twice = [("a", Hook::PREROUTING, -300), ("b", Hook::PREROUTING, -450)];
    assert!(exempt(&twice).contains("prerouting: the answers"));
    let late = [("a", Hook::PREROUTING, 0), ("b", Hook::OUTPUT, -300)];
    assert!(exempt(&late).contains("in output"), "a late rule does not count");
    assert!(!exempt(&[]).contains("They all"), "unknown hooks");
}

#[test]
fn a_rule_that_comes_after_conntrack_exempts_nothing() {
    let is_late = |number, priority| {
        let rules = ruleset(&[("a", number, priority)], vec![rule("a", &["notrack"])]);
        late_notrack(&rules).is_some()
    };
    assert!(!is_late(Hook::PREROUTING, -300) && !is_late(Hook::OUTPUT, -201));
    assert!(is_late(Hook::PREROUTING, -200) && is_late(Hook::PREROUTING, -150));
    assert!(is_late(2, -300), "forward");
    let jumped = Rule { jumps: vec!["b".to_owned()], ..rule("a", &[]) };
    let rules = ruleset(&RAW[..1], vec![jumped, rule("b", &["notrack"])]);
    assert!(late_notrack(&rules).is_none() && notrack(&rules, false).is_some());
}

#[test]
fn a_limit_that_is_asked_for_every_packet_is_told() {
    let is_told = |rules| counts_all(&ruleset(&RAW, rules), None).is_some();
    let count = || rule("a", &["dynset", "connlimit"]);
    assert!(is_told(vec![count()]));
    assert!(is_told(vec![rule("a", &["ct", "connlimit"])]), "a mark is no state");
    assert!(!is_told(vec![for_new("a", &["ct", "state", "connlimit"])]));
    assert!(is_told(vec![rule("a", &["ct", "state", "connlimit"])]), "of all but invalid ones");
    let unclear = Rule { old: Old::Unclear, ..count() };
    assert!(!is_told(vec![unclear]), "nobody knows");
    assert!(!is_told(vec![rule("a", &["ct", "state", "accept"]), count()]));
    assert!(!is_told(vec![rule("a", &["ct", "state", "vmap"]), count()]));
    assert!(is_told(vec![count(), rule("a", &["ct", "state", "accept"])]), "it comes later");
    let jump = |names: &[&str]| Rule { jumps: vec!["sub".to_owned()], ..rule("a", names) };
    let sub = || rule("sub", &["connlimit"]);
    assert!(is_told(vec![jump(&[]), sub()]));
    let jump_of_new = || Rule { old: Old::Missed, ..jump(&["ct", "state"]) };
    assert!(!is_told(vec![jump_of_new(), sub()]));
    assert!(is_told(vec![jump_of_new(), jump(&[]), sub()]), "one of two ways");
}

#[test]
fn only_the_first_packet_of_a_flow_comes_to_a_chain_of_nat() {
    let mut rules = ruleset(&RAW, vec![rule("a", &["connlimit"])]);
    assert!(counts_all(&rules, None).is_some());
    rules.chains[0].is_nat = true;
    assert!(counts_all(&rules, None).is_none());
}

/// Fails when a rule that accepts new connections hides a limit that old ones meet.
#[test]
fn accepting_new_connections_leaves_old_ones_to_the_rules_that_follow() {
    let is_told = |rules| counts_all(&ruleset(&RAW, rules), None).is_some();
    let count = || rule("a", &["dynset", "connlimit"]);
    let jump = |names: &[&str]| Rule { jumps: vec!["sub".to_owned()], ..rule("a", names) };
    assert!(is_told(vec![for_new("a", &["ct", "state", "immediate", "accept"]), count()]));
    assert!(is_told(vec![for_new("a", &["ct", "state", "immediate", "return"]), count()]));
    let accepts_new = || for_new("sub", &["ct", "state", "immediate", "accept"]);
    assert!(is_told(vec![accepts_new(), jump(&["immediate"]), count()]), "in a chain for all");
    let of_old = || jump(&["ct", "state", "immediate"]);
    assert!(is_told(vec![accepts_new(), of_old(), count()]));
    assert!(!is_told(vec![rule("sub", &["accept"]), of_old(), count()]));
    // `ct state vmap { new : jump sub, established : accept }`
    let new_only_jumps = vec!["sub".to_owned()];
    let vmap = || Rule { new_only_jumps: new_only_jumps.clone(), ..jump(&["ct", "state", "vmap"]) };
    assert!(!is_told(vec![vmap(), rule("sub", &["connlimit"])]));
    assert!(!is_told(vec![vmap(), count()]));
    let without_old = Rule { old: Old::Missed, ..vmap() };
    assert!(is_told(vec![without_old, rule("sub", &["connlimit"]), count()]), "not the first");
}

#[test]
fn a_kernel_that_counts_connections_twice_is_named_and_another_is_not() {
    let rules = ruleset(&RAW, vec![rule("a", &["connlimit"])]);
    let told = |release| counts_all(&rules, release).unwrap().why.contains("timer tick");
    assert!(told(Some((5, 19))) && told(Some((6, 18))));
    assert!(!told(Some((5, 15))) && !told(Some((6, 19))) && !told(None));
}

#[test]
fn a_meter_of_tcp_packets_is_told_and_one_of_new_connections_or_pings_is_not() {
    let is_told = |names: &[&str], is_tcp| {
        let rule = Rule { is_tcp, ..rule("a", names) };
        limits_packets(&ruleset(&RAW, vec![rule])).is_some()
    };
    assert!(is_told(&["dynset", "limit", "meter"], true) && is_told(&["hashlimit"], true));
    assert!(!is_told(&["dynset", "limit", "meter"], false) && !is_told(&["limit"], true));
    assert!(is_told(&["lookup", "limit", "meter"], true), "the set has the limit");
    assert!(!is_told(&["limit", "dynset"], true), "a limit for all, and a set that remembers");
    let of_syns = Rule { is_tcp: true, ..for_new("a", &["tcp flags", "dynset", "limit", "meter"]) };
    assert!(limits_packets(&ruleset(&RAW, vec![of_syns])).is_none());
    assert!(!is_told(&["dynset", "limit", "ample", "meter"], true), "of bytes, or of thousands");
    assert!(!is_told(&["hashlimit", "LOG"], true), "it refuses nothing");
    assert!(is_told(&["hashlimit", "log", "immediate"], true));
}

/// Fails when a rule that never meets a state, or a bridge, is to ask for one.
#[test]
fn who_limits_new_connections_is_told_to_ask_for_a_state_only_where_packets_have_one() {
    let advice = |family, chains: &[(&str, u32, i32)]| {
        let rule = Rule { family, ..rule("a", &["connlimit"]) };
        let rules = ruleset(chains, vec![rule]);
        let why = counts_all(&rules, None).unwrap().why;
        (why.contains("`ct state new`"), why.contains("`tcp flags"))
    };
    let filter = [("a", Hook::PREROUTING, 0)];
    assert_eq!(advice(INET, &filter), (true, false));
    assert_eq!(advice(INET, &RAW), (false, true), "before conntrack");
    assert_eq!(advice(BRIDGE, &filter), (false, true));
    assert_eq!(advice(NETDEV, &filter), (false, true));
    let jump = |chain| Rule { jumps: vec!["sub".to_owned()], ..rule(chain, &[]) };
    let rules = vec![jump("a"), jump("b"), rule("sub", &["connlimit"])];
    let both = ruleset(&[RAW[0], ("b", Hook::PREROUTING, 0)], rules);
    let why = counts_all(&both, None).unwrap().why;
    assert!(!why.contains("`ct state new`"), "{why}");
}

fn policy(seconds: &[(u16, u32)]) -> TimeoutPolicy {
    TimeoutPolicy {
        family: INET,
        table: Some("t".to_owned()),
        name: "db".to_owned(),
        protocol: protocol::TCP,
        uses: None,
        seconds: seconds.to_vec(),
    }
}

#[test]
fn a_policy_that_no_flow_gets_is_a_warning_and_another_a_note() {
    use super::super::finding::Severity::{Note, Warning};
    let policy = policy(&[(1, 60), (3, 172_800)]);
    let set = |chain: &str| Rule { timeouts: vec!["db".to_owned()], ..rule(chain, &[]) };
    let now = |name: &str| Some(if name.ends_with("established") { 86_400 } else { 60 });
    let judged = |priority, rules| {
        let rules = ruleset(&[("a", Hook::PREROUTING, priority)], rules);
        timeout_policy(&policy, &rules, now).map(|found| found.severity)
    };
    assert_eq!(judged(-150, vec![]), Some(Warning));
    assert_eq!(judged(-300, vec![set("a")]), Some(Warning));
    assert_eq!(judged(-150, vec![set("a")]), Some(Note));
    assert_eq!(judged(-300, vec![set("a"), set("unknown")]), Some(Note));
    let rules = ruleset(&[("a", Hook::PREROUTING, -150)], vec![set("a")]);
    let what = timeout_policy(&policy, &rules, now).unwrap().what;
    assert!(what.ends_with("some flows: tcp_timeout_established 172800 s, not 86400 s"), "{what}");
    assert!(timeout_policy(&policy, &rules, |_| None).is_none());
}

/// Fails when a policy that rules take from a map, or that iptables assigns, is called useless.
#[test]
fn a_policy_that_a_map_or_iptables_assigns_is_no_warning() {
    use super::super::finding::Severity::{Note, Warning};
    let now = |_: &str| Some(60);
    let judged = |table: Option<&str>, uses, rules| {
        let table = table.map(str::to_owned);
        let policy = TimeoutPolicy { table, uses: Some(uses), ..policy(&[(3, 600)]) };
        let chains = [("a", Hook::PREROUTING, -150), ("early", Hook::PREROUTING, -300)];
        timeout_policy(&policy, &ruleset(&chains, rules), now).map(|found| found.severity)
    };
    let by_map = |chain: &str| Rule { has_object_map: true, ..rule(chain, &["objref"]) };
    assert_eq!(judged(Some("t"), 1, vec![by_map("a")]), Some(Note));
    assert_eq!(judged(Some("t"), 1, vec![by_map("early")]), Some(Warning));
    assert_eq!(judged(Some("t"), 0, vec![by_map("a")]), Some(Warning), "the map lacks it");
    assert_eq!(judged(Some("t"), 1, vec![]), Some(Note), "a map that nothing reads as yet");
    assert_eq!(judged(None, 1, vec![]), Some(Note));
    assert_eq!(judged(None, 0, vec![]), Some(Warning));
}

/// Fails when tables that complete each other are taken for rules of one direction.
#[test]
fn a_direction_that_another_table_or_iptables_exempts_is_not_missed() {
    let one_way = |first, second, has_legacy| {
        let mut rules = ruleset(&RAW, vec![rule("a", &["notrack"]), rule("b", &["notrack"])]);
        for (at, family) in [first, second].into_iter().enumerate() {
            (rules.rules[at].family, rules.chains[at].family) = (family, family);
        }
        notrack(&rules, has_legacy).unwrap().why.contains("They all")
    };
    assert!(!one_way(2, INET, false) && !one_way(INET, 10, false) && !one_way(2, 2, false));
    assert!(one_way(2, 10, false), "each of another family");
    let alone = |has_legacy| {
        let rules = ruleset(&RAW, vec![rule("a", &["notrack"])]);
        notrack(&rules, has_legacy).unwrap().why.contains("They all")
    };
    assert!(alone(false) && !alone(true));
}

/// Fails when rules behind a chain that accepts old connections are said to meet these.
#[test]
fn old_connections_end_where_a_chain_accepts_or_leaves_them() {
    let is_told = |mut rules: Vec<Rule>| {
        rules.push(rule("a", &["connlimit"]));
        counts_all(&ruleset(&RAW, rules), None).is_some()
    };
    let jump = |names: &[&str]| Rule { jumps: vec!["sub".to_owned()], ..rule("a", names) };
    let accepts = || rule("sub", &["ct", "state", "immediate", "accept"]);
    assert!(!is_told(vec![accepts(), jump(&["counter", "immediate"])]), "a chain for all");
    assert!(is_told(vec![accepts(), jump(&["payload", "cmp", "immediate"])]), "of one port");
    assert!(!is_told(vec![rule("a", &["ct", "state", "immediate", "return"])]));
    assert!(!is_told(vec![jump(&["ct", "state", "immediate", "goto"])]));
    assert!(!is_told(vec![rule("sub", &["accept"]), jump(&["ct", "state", "immediate"])]));
    assert!(is_told(vec![rule("sub", &["counter"]), jump(&["ct", "state", "immediate"])]));
    let returns = rule("sub", &["ct", "state", "immediate", "return"]);
    assert!(is_told(vec![returns, jump(&["immediate"])]), "it returns to the limit");
}

#[test]
fn what_policies_give_is_known_to_those_who_judge_entries() {
    let rules = Ruleset { timeouts: vec![policy(&[(1, 9), (3, 600)])], ..Ruleset::default() };
    assert_eq!(established(&rules), [600]);
    let longest = longest(&rules);
    assert_eq!((longest.tcp_established, longest.tcp_syn_sent, longest.udp), (600, 9, 0));
}

#[test]
fn a_flowtable_is_told_with_what_its_kernel_does_to_entries() {
    let why = |counts, forgets| {
        let devices = vec!["lan0".to_owned()];
        let table = Flowtable { table: "t".to_owned(), name: "f".to_owned(), devices, counts };
        flowtable(&table, forgets).why
    };
    assert!(why(false, false).contains("`counter`") && !why(true, false).contains("`counter`"));
    assert!(why(true, true).contains("6.18.39") && !why(true, false).contains("6.18.39"));
    let forgets = |text: &str| {
        let release = ("/proc/sys/kernel/osrelease", text);
        let fake = crate::host::testing::Fake::new("flow-rules-release", &[release]);
        let host = &fake.host;
        forgets_offloaded(host.release().unwrap().unwrap(), host.sublevel().unwrap())
    };
    for text in ["6.14.0-15-generic", "6.17.9", "6.18.38-amd64", "6.18-rc1", "6.19.3", "7.1.3"] {
        assert!(forgets(text), "{text}");
    }
    for text in ["6.12.48+deb13-amd64", "6.18.39", "6.18.40-1", "7.1.4", "7.2.0", "8.0"] {
        assert!(!forgets(text), "{text}");
    }
}

/// Fails when a policy that only a chain without visitors assigns is taken for one that applies.
#[test]
fn a_policy_that_only_an_idle_rule_assigns_applies_to_nothing() {
    use super::super::finding::Severity::{Note, Warning};
    let policy = TimeoutPolicy { uses: Some(1), ..policy(&[(3, 600)]) };
    let set = Rule { timeouts: vec!["db".to_owned()], ..rule("a", &[]) };
    let judged =
        |rules: Ruleset| timeout_policy(&policy, &rules, |_| Some(60)).map(|it| it.severity);
    let chains = [("a", Hook::PREROUTING, -150)];
    assert_eq!(judged(ruleset(&chains, vec![set.clone()])), Some(Note));
    assert_eq!(judged(Ruleset { idle: vec![set], ..ruleset(&chains, vec![]) }), Some(Warning));
}
