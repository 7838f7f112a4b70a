//! What doctor says of real rulesets, and that the kernel's lists are read as `nft -j` reads them.

use std::{net::UdpSocket, ops::ControlFlow};

use anyhow::{Context as _, Result, ensure};
use ctguard_kernel::{conntrack::dump_some, net::Ruleset};
use ctguard_tests::{
    exec,
    netns::{Handle, Namespace},
    product, require,
};
use serde_json::Value;

use super::{found, is_possible, of_check};

/// Rules that do what they are meant to do.
const SOUND: &str = r#"
table inet fine {
  ct timeout db { protocol tcp; policy = { established : 172800 }; }
  set clients { type ipv4_addr; flags dynamic; size 1024; }
  chain raw { type filter hook prerouting priority raw; udp dport 123 notrack; }
  chain rawout { type filter hook output priority raw; udp sport 123 notrack; }
  chain pre { type filter hook prerouting priority mangle; tcp dport 5432 ct timeout set "db"; }
  chain in {
    type filter hook input priority filter;
    ct state vmap { established : accept, related : accept, invalid : drop }
    tcp dport 22 add @clients { ip saddr ct count over 10 } drop
    tcp dport 25 add @clients { ip saddr limit rate over 3/second } drop
    icmp type echo-request limit rate 5/second accept
    tcp flags & (syn | ack) == syn jump sub
  }
  chain sub { ct count over 500 drop; }
}
"#;

/// Rules that do not.
const UNSOUND: &str = r#"
table ip wrong {
  ct timeout early { protocol udp; policy = { unreplied : 7 }; }
  ct timeout unused { protocol udp; policy = { unreplied : 7 }; }
  set clients { type ipv4_addr; flags dynamic; size 1024; }
  chain raw { type filter hook prerouting priority raw; udp dport 53 ct timeout set "early"; }
  chain mangle { type filter hook prerouting priority mangle; udp dport 123 notrack; }
  chain in {
    type filter hook input priority filter;
    tcp dport 22 add @clients { ip saddr ct count over 10 } drop
    tcp dport 25 add @clients { ip saddr limit rate over 3/second } drop
  }
}
"#;

/// Rules of an unusual make that do what they are meant to do.
const UNUSUAL: &str = r#"
table inet odd {
  ct timeout web { protocol tcp; policy = { established : 7200 }; }
  set talkers { type ipv4_addr; flags dynamic, timeout; timeout 1m; size 1024; }
  set callers { type ipv4_addr; flags dynamic; size 1024; }
  counter hits { }
  quota monthly { over 100000 mbytes }
  map services { type inet_service : verdict; elements = { 22 : jump ssh, 25 : goto mail } }
  chain ingress { type filter hook ingress device lo priority 0; udp dport 123 notrack; }
  chain pre { type filter hook prerouting priority mangle; tcp dport vmap { 80 : jump web }; }
  chain web { ct timeout set "web"; }
  chain first { type filter hook input priority -5; counter name "hits"; quota name "monthly" drop; }
  chain in {
    type filter hook input priority filter; policy drop;
    jump global
    tcp dport vmap @services
    meta l4proto tcp update @talkers { ip saddr limit rate over 10 mbytes/second } drop
  }
  chain global { ct state { established, related } accept; ct state invalid drop; }
  chain ssh { add @callers { ip saddr ct count over 10 } drop; accept; }
  chain mail { ct count over 50 drop; accept; }
  chain through {
    type filter hook forward priority filter;
    ct state established,related goto known
    tcp dport 25 ct count over 20 drop
  }
  chain known { counter accept; }
}
table netdev edge {
  set talkers { type ipv4_addr; flags dynamic; size 1024; }
  chain ingress {
    type filter hook ingress device lo priority 0;
    ip protocol tcp add @talkers { ip saddr limit rate over 20000/second } drop
  }
}
table ip dns {
  chain pre { type filter hook prerouting priority raw; udp dport 53 notrack; }
}
table inet answers {
  chain out { type filter hook output priority raw; udp sport 53 notrack; }
}
"#;

/// The shape of firewalld's tables, of `OpenWrt`'s and of Docker's, each with a limit for new connections
/// behind the rules that accept old ones.
const MANAGED: &str = r#"
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES { goto filter_IN_public; }
  chain filter_IN_public { jump filter_IN_public_allow; }
  chain filter_IN_public_allow { tcp dport 22 ct count over 10 drop; tcp dport 22 accept; }
}
table inet fw4 {
  set clients { type ipv4_addr; flags dynamic; size 1024; limit rate over 30/second; }
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state vmap { established : accept, related : accept }
    tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
    iifname "wan" jump input_wan
  }
  chain syn_flood { limit rate 25/second burst 50 packets return; drop; }
  chain input_wan { meta l4proto tcp add @clients { ip saddr } drop; }
}
table ip docker {
  chain FORWARD { type filter hook forward priority filter; jump DOCKER-USER; jump DOCKER-FORWARD; }
  chain DOCKER-USER { return; }
  chain DOCKER-FORWARD { jump DOCKER-CT; jump DOCKER; }
  chain DOCKER-CT { oifname "docker0" ct state related,established counter accept; }
  chain DOCKER { oifname "docker0" tcp dport 80 counter accept; }
}
"#;

/// Each of these rules limits packets of old connections too.
const HIDDEN: &str = r"
table ip behind_new {
  chain in {
    type filter hook input priority filter;
    tcp dport 22 ct state new accept
    ct state vmap { new : accept, untracked : accept }
    ct state { new, invalid } accept
    tcp flags syn / fin,syn,rst,ack accept
    tcp dport 22 ct count over 10 drop
  }
}
table ip by_set {
  set clients { type ipv4_addr; flags dynamic; size 1024; limit rate over 30/second; }
  chain in { type filter hook input priority filter; tcp dport 25 add @clients { ip saddr } drop; }
}
";

/// Nothing leads to the chains of the first table, and the second is dormant.
const IDLE: &str = r"
table ip left_over {
  chain in { type filter hook input priority filter; }
  chain old { tcp dport 22 ct count over 10 drop; udp dport 53 notrack; }
  chain older { jump old; }
  chain spare { masquerade; }
}
table ip asleep {
  flags dormant;
  chain in { type filter hook input priority filter; tcp dport 22 ct count over 10 drop; }
  chain post { type nat hook postrouting priority srcnat; masquerade; }
}
";

const OF_RULES: [&str; 6] =
    ["notrack", "notrack-late", "counts-all", "limits-packets", "timeout-policy", "flowtable"];

fn load(namespace: &Handle, rules: &str) -> Result<()> {
    exec::run_with_input(namespace.command("nft").args(["-f", "-"]), rules).map(|_| ())
}

fn checks(namespace: &Handle) -> Result<Vec<String>> {
    Ok(checks_of(&found(namespace)?))
}

fn checks_of(found: &[Value]) -> Vec<String> {
    let shown = found.iter().filter_map(|it| {
        let check = it["check"].as_str()?;
        OF_RULES
            .contains(&check)
            .then(|| format!("{check} {}", it["severity"].as_str().unwrap_or("")))
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort();
    shown
}

#[test]
fn rules_are_judged_by_hook_and_priority_and_by_what_comes_before_them() -> Result<()> {
    if !is_possible("rules_are_judged_by_hook_and_priority_and_by_what_comes_before_them") {
        return Ok(());
    }
    let namespace = Namespace::create("rules")?;
    load(&namespace, SOUND)?;
    let fine = checks(&namespace)?;
    ensure!(fine == ["notrack note", "timeout-policy note"], "{fine:?}");
    load(&namespace, &format!("flush ruleset\n{UNSOUND}"))?;
    let wrong = checks(&namespace)?;
    let expected = [
        "counts-all note",
        "limits-packets note",
        "notrack-late warning",
        "timeout-policy warning",
        "timeout-policy warning",
    ];
    ensure!(wrong == expected, "{wrong:?}");
    Ok(())
}

/// Fails when a sound rule is found fault with because of where it stands or how packets get there.
#[test]
fn unusual_rules_that_are_sound_are_not_found_fault_with() -> Result<()> {
    if !is_possible("unusual_rules_that_are_sound_are_not_found_fault_with") {
        return Ok(());
    }
    let namespace = Namespace::create("unusual")?;
    load(&namespace, UNUSUAL)?;
    let found = found(&namespace)?;
    let fine = checks_of(&found);
    ensure!(fine == ["notrack note", "timeout-policy note"], "{fine:?}");
    let notrack = of_check(&found, "notrack").context("no notrack")?;
    ensure!(!notrack["why"].to_string().contains("They all"), "{notrack}");
    Ok(())
}

/// Fails when rules of a firewall's own make are found fault with.
#[test]
fn limits_behind_the_rules_of_a_firewall_are_sound() -> Result<()> {
    if !is_possible("limits_behind_the_rules_of_a_firewall_are_sound") {
        return Ok(());
    }
    let namespace = Namespace::create("managed")?;
    load(&namespace, MANAGED)?;
    let found = found(&namespace)?;
    let fine = checks_of(&found);
    ensure!(fine.is_empty(), "{fine:?}");
    let writers = of_check(&found, "writers").context("no writers")?["what"].to_string();
    ensure!(
        ["Docker", "OpenWrt", "firewalld"].iter().all(|name| writers.contains(name)),
        "{writers}"
    );
    Ok(())
}

/// Fails when rules for new connections, or a set, hide what is done to old ones.
#[test]
fn limits_that_old_connections_meet_are_found_behind_others() -> Result<()> {
    if !is_possible("limits_that_old_connections_meet_are_found_behind_others") {
        return Ok(());
    }
    let namespace = Namespace::create("hidden")?;
    load(&namespace, HIDDEN)?;
    let hidden = checks(&namespace)?;
    ensure!(hidden == ["counts-all note", "limits-packets note"], "{hidden:?}");
    let iptables =
        |rule: &str| exec::run(namespace.command("iptables-nft").args(rule.split(' '))).map(|_| ());
    load(&namespace, "flush ruleset")?;
    iptables("-A INPUT -m conntrack --ctstate NEW -p tcp --dport 22 -j ACCEPT")?;
    iptables("-A INPUT -p tcp --dport 25 -m connlimit --connlimit-above 9 -j DROP")?;
    let behind_new = checks(&namespace)?;
    ensure!(behind_new == ["counts-all note"], "{behind_new:?}");
    // As ufw begins.
    iptables("-I INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")?;
    let behind_old = checks(&namespace)?;
    ensure!(behind_old.is_empty(), "{behind_old:?}");
    iptables("-D INPUT 1")?;
    iptables("-I INPUT -m conntrack ! --ctstate NEW -j ACCEPT")?;
    let behind_others = checks(&namespace)?;
    ensure!(behind_others.is_empty(), "{behind_others:?}");
    Ok(())
}

/// Fails when rules that no packet comes to are told as if they did something.
#[test]
fn rules_that_no_packet_comes_to_are_not_judged() -> Result<()> {
    if !is_possible("rules_that_no_packet_comes_to_are_not_judged") {
        return Ok(());
    }
    let namespace = Namespace::create("idle")?;
    load(&namespace, IDLE)?;
    let found = found(&namespace)?;
    let fine = checks_of(&found);
    ensure!(fine.is_empty(), "{fine:?}");
    ensure!(of_check(&found, "no-nat").is_some(), "it translates nothing");
    ensure!(of_check(&found, "stateful").is_some(), "conntrack tracks for such rules too");
    load(&namespace, "add rule ip left_over in jump old")?;
    let used = checks(&namespace)?;
    ensure!(used == ["counts-all note", "notrack-late warning"], "{used:?}");
    Ok(())
}

/// Fails when iptables' own rules before conntrack are not taken into account.
#[test]
fn rules_of_iptables_are_judged_beside_those_of_nftables() -> Result<()> {
    if !is_possible("rules_of_iptables_are_judged_beside_those_of_nftables") {
        return Ok(());
    }
    let namespace = Namespace::create("iptables")?;
    let iptables = |program: &str, rule: &str| {
        exec::run(namespace.command(program).args(rule.split(' '))).map(|_| ())
    };
    let to_us = "-t raw -A PREROUTING -p udp --dport 53 -j CT --notrack";
    let from_us = "-t raw -A OUTPUT -p udp --sport 53 -j CT --notrack";
    iptables("iptables-nft", to_us)?;
    iptables("iptables-nft", "-N known")?;
    iptables("iptables-nft", "-A known -m conntrack --ctstate ESTABLISHED -j ACCEPT")?;
    iptables("iptables-nft", "-A INPUT -m comment --comment first -j known")?;
    iptables(
        "iptables-nft",
        "-A INPUT -p tcp --dport 22 -m connlimit --connlimit-above 9 -j DROP",
    )?;
    let limit = "--hashlimit-mode srcip --hashlimit-name bulk -j DROP";
    let bytes = format!("-I INPUT -p tcp -m hashlimit --hashlimit-above 10mb/s {limit}");
    iptables("iptables-nft", &bytes)?;
    let checked = checks(&namespace)?;
    ensure!(checked == ["notrack note"], "{checked:?}");
    let one_way = || -> Result<bool> {
        let found = found(&namespace)?;
        let notrack = of_check(&found, "notrack").context("no notrack")?;
        Ok(notrack["why"].to_string().contains("They all"))
    };
    ensure!(one_way()?, "the answers are tracked");
    iptables("iptables-legacy", from_us)?;
    ensure!(!one_way()?, "the answers are exempted by the older iptables");
    Ok(())
}

/// Chains, policies and numbers of rules, as `nft -j` lists them.
fn listed(namespace: &Handle) -> Result<(Vec<String>, Vec<String>, usize)> {
    let json = exec::run(namespace.command("nft").args(["-j", "list", "ruleset"]))?;
    let all: Value = serde_json::from_str(&json)?;
    let all = all["nftables"].as_array().context("no list")?.clone();
    let of = |kind: &str| all.iter().filter_map(|it| it.get(kind)).cloned().collect::<Vec<_>>();
    let mut chains: Vec<_> = of("chain")
        .iter()
        .filter(|it| !it["hook"].is_null())
        .map(|it| format!("{} {} {}", it["name"], it["hook"], it["prio"]).replace('"', ""))
        .collect();
    let policies = of("ct timeout");
    let mut policies: Vec<_> =
        policies.iter().map(|it| it["name"].as_str().unwrap_or_default().to_owned()).collect();
    chains.sort();
    policies.sort();
    Ok((chains, policies, of("rule").len()))
}

#[test]
fn chains_policies_and_rules_are_read_as_nft_lists_them() -> Result<()> {
    const TEST: &str = "chains_policies_and_rules_are_read_as_nft_lists_them";
    if !require::root(TEST) {
        return Ok(());
    }
    let namespace = Namespace::create("listed")?;
    load(&namespace, &format!("{SOUND}\n{UNSOUND}"))?;
    let read = namespace.run(|| Ok(Ruleset::read()?))?;
    let (chains, policies, rules) = listed(&namespace)?;
    let hooks = ["prerouting", "input", "forward", "output", "postrouting"];
    let name = |number: u32| usize::try_from(number).ok().and_then(|at| hooks.get(at)).copied();
    let mut ours: Vec<_> = read
        .chains
        .iter()
        .map(|it| {
            let hook = name(it.hook.number).unwrap_or_default();
            format!("{} {hook} {}", it.name, it.hook.priority)
        })
        .collect();
    let mut our_policies: Vec<_> = read.timeouts.iter().map(|it| it.name.clone()).collect();
    ours.sort();
    our_policies.sort();
    println!("{} chains, {} policies, {rules} rules", chains.len(), policies.len());
    ensure!(ours == chains, "{ours:?} is not {chains:?}");
    ensure!(our_policies == policies, "{our_policies:?} is not {policies:?}");
    ensure!(read.rules.len() == rules, "{} rules, not {rules}", read.rules.len());
    let unused = read.timeouts.iter().find(|it| it.name == "unused").context("no policy unused")?;
    let db = read.timeouts.iter().find(|it| it.name == "db").context("no policy db")?;
    ensure!([db.uses, unused.uses] == [Some(1), Some(0)], "{db:?}, {unused:?}");
    ensure!(db.protocol == 6 && db.seconds.contains(&(3, 172_800)), "{db:?}");
    Ok(())
}

/// Fails when the rules that tune prints are refused, or give no flow their timeout.
#[test]
fn the_rules_that_tune_prints_for_a_service_give_its_flows_their_timeout() -> Result<()> {
    if !is_possible("the_rules_that_tune_prints_for_a_service_give_its_flows_their_timeout") {
        return Ok(());
    }
    let namespace = Namespace::create("service")?;
    let arguments = ["tune", "--service", "udp/5300=7s", "--service", "tcp/5432=2d", "--json"];
    let shown = exec::run(&mut product::command_in(&namespace, &arguments)?)?;
    let shown: Value = serde_json::from_str(&shown)?;
    let commands = shown["service_rules"].as_array().context("no rules")?;
    for command in commands.iter().filter_map(Value::as_str) {
        exec::run(namespace.command("sh").args(["-c", command]))?;
    }
    let left = namespace.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        for port in [5300, 5301] {
            // Nobody listens, which a later call may tell.
            let _ = socket.send_to(b"x", ("127.0.0.1", port));
        }
        let mut left = Vec::new();
        dump_some(|entry| {
            let [.., high, low] = entry.original.key.to_be_bytes();
            left.push((u16::from_be_bytes([high, low]), entry.timeout_seconds));
            ControlFlow::Continue(())
        })?;
        Ok(left)
    })?;
    let of = |port| left.iter().find(|it| it.0 == port).and_then(|it| it.1);
    ensure!(of(5300).is_some_and(|left| left <= 7), "{left:?}");
    ensure!(of(5301).is_some_and(|left| left > 7), "{left:?}");
    let checks = checks(&namespace)?;
    ensure!(checks == ["timeout-policy note", "timeout-policy note"], "{checks:?}");
    Ok(())
}
