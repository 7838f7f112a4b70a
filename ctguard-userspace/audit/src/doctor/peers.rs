//! Peers that this machine's own routing and failover need, whom a guard would treat as strangers.

use std::{collections::BTreeMap, net::IpAddr};

use super::finding::{Finding, Findings};
use crate::host::Host;
use ipnet::IpNet;

/// Configuration files, and how a line that names peers begins.
const FILES: [(&str, &[&str]); 6] = [
    ("/etc/keepalived/keepalived.conf", &["unicast_peer"]),
    ("/etc/frr/frr.conf", &["neighbor", "peer"]),
    ("/etc/frr/bgpd.conf", &["neighbor"]),
    ("/etc/frr/bfdd.conf", &["peer"]),
    ("/etc/bird/bird.conf", &["neighbor"]),
    ("/etc/bird.conf", &["neighbor"]),
];
const COMMENTS: [char; 2] = ['#', '!'];
const MOST_NAMED: usize = 8;

/// Notes the peers that are not on the allow list.
pub(super) fn check(host: &Host, allowed: &[IpNet], findings: &mut Findings) {
    let mut peers = BTreeMap::new();
    for (path, words) in FILES {
        let text = findings.text("peers", host, path);
        peers.extend(named(&text, words).into_iter().map(|peer| (peer, path)));
    }
    peers.retain(|peer, _| !allowed.iter().any(|prefix| prefix.contains(peer)));
    let names: Vec<_> = peers.keys().take(MOST_NAMED).map(ToString::to_string).collect();
    let finding = Finding::note("peers", format!("routing and failover need {}", names.join(", ")))
        .because(
            "to a guard they are strangers until a flow of theirs is known. A BGP peer with TCP MD5 \
             cannot answer a challenge, and VRRP and BFD give up after a second: put them on the allow \
             list",
        );
    let finding = peers.values().fold(finding, |finding, path| {
        let is_read = finding.read.iter().any(|reading| reading.place == *path);
        if is_read { finding } else { finding.read(*path, "peers") }
    });
    let finding = names
        .iter()
        .fold(finding, |finding, peer| finding.tune(format!("ctguard allow add {peer}")));
    findings.add(finding.when(!names.is_empty()));
}

/// Addresses behind the words, on the same line or in the braces that follow.
fn named(text: &str, words: &[&str]) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split(COMMENTS).next().unwrap_or_default());
    let (mut found, mut in_block) = (Vec::new(), false);
    for line in lines {
        let is_sign = |sign: char| sign.is_whitespace() || matches!(sign, '{' | '}' | ';');
        let parts: Vec<_> = line.split(is_sign).filter(|part| !part.is_empty()).collect();
        let first = parts.first();
        if let Some(at) = parts.iter().position(|part| words.contains(part)) {
            found.extend(parts.get(at + 1).and_then(|part| part.parse::<IpAddr>().ok()));
            in_block = line.contains('{') && !line.contains('}');
        } else if in_block {
            found.extend(first.and_then(|first| first.parse::<IpAddr>().ok()));
            in_block = !line.contains('}');
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    const KEEPALIVED: &str = "vrrp_instance one {\n  unicast_src_ip 192.0.2.1\n  unicast_peer {\n    \
        192.0.2.2\n    # 192.0.2.9\n    2001:db8::2\n  }\n  virtual_ipaddress {\n 192.0.2.100\n }\n}\n";
    const FRR: &str = "router bgp 64500\n neighbor 198.51.100.1 remote-as 64501\n \
        neighbor UPSTREAM peer-group\n!\nbfd\n peer 198.51.100.2\n";

    #[test]
    fn peers_of_keepalived_frr_and_bird_are_named_and_what_is_listed_is_not() {
        let files = [
            ("/etc/keepalived/keepalived.conf", KEEPALIVED),
            ("/etc/frr/frr.conf", FRR),
            ("/etc/bird/bird.conf", "protocol bgp { neighbor 198.51.100.3 as 64502; }\n"),
        ];
        let fake = Fake::new("peers", &files);
        let mut findings = Findings::default();
        check(&fake.host, &["192.0.2.2/32".parse().unwrap()], &mut findings);
        let [found] = findings.found.as_slice() else { panic!("{findings:?}") };
        let commands: Vec<_> = found.mend.iter().map(|mend| mend.command.as_str()).collect();
        let expected = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "2001:db8::2"];
        assert_eq!(commands, expected.map(|peer| format!("ctguard allow add {peer}")));
    }

    #[test]
    fn a_machine_without_such_files_has_no_peers() {
        let mut findings = Findings::default();
        check(&Fake::new("peers-none", &[]).host, &[], &mut findings);
        assert!(findings.found.is_empty() && findings.skipped.is_empty());
    }
}
