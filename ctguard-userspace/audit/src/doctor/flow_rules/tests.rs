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

/// A ruleset whose chains are all at these hooks and priorities.
fn ruleset(chains: &[(&str, u32, i32)], rules: Vec<Rule>) -> Ruleset {
    let chain = |&(name, number, priority): &(&str, u32, i32)| Chain {
        family: INET,
        table: "t".to_owned(),
        name: name.to_owned(),
        hook: Hook { number, priority },
    };
    Ruleset { rules, chains: chains.iter().map(chain).collect(), ..Ruleset::default() }
}

const RAW: [(&str, u32, i32); 2] = [("a", Hook::PREROUTING, -300), ("b", Hook::OUTPUT, -300)];

/// Fails when two chains of one hook are taken for both directions, or names decide.
#[test]
fn rules_for_one_direction_are_told_by_their_hooks() {
    let exempt = |chains: &[(&str, u32, i32)]| {
        let rules = ruleset(chains, vec![rule("a", &["notrack"]), rule("b", &["notrack"])]);
        notrack(&rules).unwrap().why
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
    assert!(late_notrack(&rules).is_none() && notrack(&rules).is_some());
}

#[test]
fn a_limit_that_is_asked_for_every_packet_is_told() {
    let is_told = |rules| counts_all(&ruleset(&RAW, rules), None).is_some();
    let count = || rule("a", &["dynset", "connlimit"]);
    assert!(is_told(vec![count()]));
    assert!(is_told(vec![rule("a", &["ct", "connlimit"])]), "a mark is no state");
    assert!(!is_told(vec![rule("a", &["ct", "state", "connlimit"])]));
    assert!(!is_told(vec![rule("a", &["ct", "state", "accept"]), count()]));
    assert!(!is_told(vec![rule("a", &["ct", "state", "vmap"]), count()]));
    assert!(is_told(vec![count(), rule("a", &["ct", "state", "accept"])]), "it comes later");
    let jump = |names: &[&str]| Rule { jumps: vec!["sub".to_owned()], ..rule("a", names) };
    let sub = || rule("sub", &["connlimit"]);
    assert!(is_told(vec![jump(&[]), sub()]));
    assert!(!is_told(vec![jump(&["ct", "state"]), sub()]));
    assert!(is_told(vec![jump(&["ct", "state"]), jump(&[]), sub()]), "one of two ways");
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
    assert!(is_told(&["dynset", "limit"], true) && is_told(&["hashlimit"], true));
    assert!(!is_told(&["dynset", "limit"], false) && !is_told(&["limit"], true));
    assert!(!is_told(&["ct", "state", "dynset", "limit"], true));
    assert!(!is_told(&["payload", "tcp flags", "dynset", "limit"], true), "SYNs alone");
}

fn policy(seconds: &[(u16, u32)]) -> TimeoutPolicy {
    TimeoutPolicy {
        family: INET,
        table: "t".to_owned(),
        name: "db".to_owned(),
        protocol: protocol::TCP,
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

#[test]
fn what_policies_give_is_known_to_those_who_judge_entries() {
    let rules = Ruleset { timeouts: vec![policy(&[(1, 9), (3, 600)])], ..Ruleset::default() };
    assert_eq!(established(&rules), [600]);
    let longest = longest(&rules);
    assert_eq!((longest.tcp_established, longest.tcp_syn_sent, longest.udp), (600, 9, 0));
}

#[test]
fn a_flowtable_is_told_with_what_its_kernel_does_to_entries() {
    let why = |counts, release| {
        let devices = vec!["lan0".to_owned()];
        let table = Flowtable { table: "t".to_owned(), name: "f".to_owned(), devices, counts };
        flowtable(&table, Some(release)).why
    };
    assert!(why(false, (6, 12)).contains("`counter`") && !why(true, (6, 12)).contains("`counter`"));
    assert!(why(true, (6, 18)).contains("June 2026") && !why(true, (6, 12)).contains("June 2026"));
}
