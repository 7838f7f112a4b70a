//! The elements of a set of nftables, from `nft -j list set`.
//!
//! `nft -j monitor` tells neither when elements end nor which ones rules add, so the set is listed again
//! and again. Seen with nftables 1.0.6: there is no `elem` where a set is empty; an element is a string, a
//! prefix, a range or a concatenation, or `elem` with one of these as `val` if it has more to tell.

use std::{net::IpAddr, process::Command, time::Duration};

use ctguard_kernel::maps::Entry;
use ctguard_settings::parse_listed;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{
    command,
    reader::{Reading, end_after},
    stop::Stop,
    text::range,
};

/// Listing 50,000 elements takes a second.
const PATIENCE: Duration = Duration::from_mins(1);
/// A million elements with their ends.
const MOST_BYTES: usize = 1 << 27;

#[derive(Deserialize)]
struct Document {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    set: Option<Set>,
}

#[derive(Deserialize)]
struct Set {
    /// An array where elements are concatenations.
    #[serde(rename = "type")]
    kind: Value,
    #[serde(default)]
    elem: Vec<Element>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Address(String),
    Other(Other),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Other {
    Prefix {
        addr: String,
        len: u8,
    },
    Range(String, String),
    Elem {
        val: Box<Element>,
        expires: Option<u64>,
    },
    #[serde(untagged)]
    Unknown(serde::de::IgnoredAny),
}

/// None if it was stopped.
pub(super) fn read(family: &str, table: &str, set: &str, stop: &Stop) -> Option<Reading> {
    let mut nft = Command::new("nft");
    nft.args(["-j", "list", "set", family, table, set]);
    let output = match command::run(&mut nft, stop, PATIENCE, MOST_BYTES) {
        Err(error) => return Some(Reading::failed(format!("cannot run nft: {error}"))),
        Ok(output) => output?,
    };
    // fail2ban makes its sets at the first ban, and removes them with the jail.
    if !output.status.success() && says_not_there(&output.errors) {
        let note = Some("the set is not there".to_owned());
        return Some(Reading::Read { entries: Some(Vec::new()), ignored: 0, note, fault: None });
    }
    if !output.status.success() {
        let first = output.errors.lines().next().unwrap_or("it says nothing").to_owned();
        return Some(Reading::failed(format!("nft fails: {first}")));
    }
    Some(match parse(&output.out) {
        Err(fault) => Reading::failed(fault),
        Ok((listed, ignored)) => {
            let entries = Some(listed.into_iter().map(entry).collect());
            Reading::Read { entries, ignored, note: None, fault: None }
        }
    })
}

fn entry((prefix, left): (IpNet, Option<u64>)) -> Entry {
    // Fractions of a second were cut.
    let whole = |left: u64| Duration::from_secs(left.saturating_add(1));
    Entry { prefix, expires_at: left.map_or(0, |left| end_after(whole(left))) }
}

/// The first words of nft's own error. A library that nft lacks is "No such file" too, and no reason to
/// lift all bans.
fn says_not_there(errors: &str) -> bool {
    errors.lines().any(|line| line.starts_with("Error: No such file or directory"))
}

/// Prefixes with the seconds that they have left, and how many elements are none.
type Listed = (Vec<(IpNet, Option<u64>)>, u64);

fn parse(bytes: &[u8]) -> Result<Listed, String> {
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| format!("nft prints something unknown: {error}"))?;
    let set = document.nftables.into_iter().find_map(|object| object.set);
    let set = set.ok_or("nft prints no set")?;
    if !matches!(set.kind.as_str(), Some("ipv4_addr" | "ipv6_addr")) {
        return Err(format!(
            "the set has elements of type {}; it takes ipv4_addr or ipv6_addr",
            set.kind.to_string().replace('"', "")
        ));
    }
    let (mut listed, mut ignored) = (Vec::new(), 0);
    for element in set.elem {
        let (element, left) = match element {
            Element::Other(Other::Elem { val, expires }) => (*val, expires),
            element @ (Element::Address(_) | Element::Other(_)) => (element, None),
        };
        match prefixes(&element) {
            Some(prefixes) => listed.extend(prefixes.into_iter().map(|prefix| (prefix, left))),
            None => ignored += 1,
        }
    }
    Ok((listed, ignored))
}

fn prefixes(element: &Element) -> Option<Vec<IpNet>> {
    let one = |text: &str| parse_listed(text).ok().map(|prefix| vec![prefix]);
    match element {
        Element::Address(text) => one(text),
        Element::Other(Other::Prefix { addr, len }) => one(&format!("{addr}/{len}")),
        Element::Other(Other::Range(first, last)) => {
            let [first, last] = [first, last].map(|text| text.parse::<IpAddr>().ok());
            // Everybody is on no list.
            range(first?, last?).filter(|all| all.iter().all(|prefix| prefix.prefix_len() > 0))
        }
        Element::Other(Other::Elem { .. } | Other::Unknown(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(elements: &str) -> Result<(Vec<String>, u64), String> {
        let document = format!(
            r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6", "json_schema_version": 1}}}},
            {{"set": {{"family": "inet", "name": "s", "table": "t", {elements}}}}}]}}"#
        );
        let (listed, ignored) = parse(document.as_bytes())?;
        let show = |(prefix, left): &(IpNet, Option<u64>)| match left {
            Some(left) => format!("{prefix} {left}"),
            None => prefix.to_string(),
        };
        Ok((listed.iter().map(show).collect(), ignored))
    }

    #[test]
    fn elements_of_every_form_are_read() {
        let (listed, ignored) = shown(
            r#""type": "ipv4_addr", "handle": 1, "flags": ["interval", "timeout"], "timeout": 60,
            "elem": ["192.0.2.1", {"prefix": {"addr": "198.51.100.0", "len": 24}},
            {"range": ["192.0.2.5", "192.0.2.8"]},
            {"elem": {"val": "192.0.2.20", "timeout": 3600, "expires": 3599, "comment": "x"}},
            {"elem": {"val": {"prefix": {"addr": "203.0.113.0", "len": 25}}, "expires": 0}},
            {"elem": {"val": {"range": ["192.0.2.30", "192.0.2.31"]}, "expires": 5,
            "counter": {"packets": 0, "bytes": 0}}},
            {"concat": ["192.0.2.40", 22]}, {"prefix": {"addr": "0.0.0.0", "len": 0}}]"#,
        )
        .unwrap();
        let expected = [
            "192.0.2.1/32",
            "198.51.100.0/24",
            "192.0.2.5/32",
            "192.0.2.6/31",
            "192.0.2.8/32",
            "192.0.2.20/32 3599",
            "203.0.113.0/25 0",
            "192.0.2.30/31 5",
        ];
        assert_eq!((listed, ignored), (expected.map(str::to_owned).to_vec(), 2));
    }

    #[test]
    fn an_empty_set_has_no_elements_at_all() {
        let empty = shown(r#""type": "ipv6_addr", "handle": 1"#);
        assert_eq!(empty, Ok((Vec::new(), 0)));
    }

    /// Fails when all bans are lifted because nft cannot be run.
    #[test]
    fn a_set_is_not_there_only_if_nft_says_so() {
        let of_set = "Error: No such file or directory; did you mean set ‘s’ in table inet ‘t’?\n";
        assert!(says_not_there(of_set));
        assert!(says_not_there(
            "# Warning: x\nError: No such file or directory\nlist set inet t s\n"
        ));
        let of_library = "nft: error while loading shared libraries: libnftables.so.1: cannot open shared \
                          object file: No such file or directory\n";
        assert!(!says_not_there(of_library));
    }

    #[test]
    fn a_set_of_something_else_is_a_fault() {
        let error = shown(r#""type": ["ipv4_addr", "inet_service"], "elem": []"#).unwrap_err();
        assert!(error.contains("type [ipv4_addr,inet_service]; it takes"), "{error}");
        let everybody = shown(
            r#""type": "ipv6_addr", "elem": [{"range": ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]}]"#,
        );
        assert_eq!(everybody, Ok((Vec::new(), 1)), "it may not panic either");
        let everybody =
            shown(r#""type": "ipv4_addr", "elem": [{"range": ["0.0.0.0", "255.255.255.255"]}]"#);
        assert_eq!(everybody, Ok((Vec::new(), 1)));
        assert!(parse(b"{\"nftables\": []}").is_err());
        assert!(parse(b"{\"nftables\": [{\"set\"").is_err());
    }

    #[test]
    fn damaged_json_is_refused_or_read_as_another_set() {
        let set = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet",
            "name": "s", "table": "t", "type": "ipv4_addr", "elem": ["192.0.2.1",
            {"prefix": {"addr": "198.51.100.0", "len": 24}}, {"range": ["192.0.2.5", "192.0.2.8"]},
            {"elem": {"val": "192.0.2.20", "timeout": 3600, "expires": 18446744073709551615}}]}}]}"#;
        ctguard_damage::survives!(&[set], |bytes: &[u8]| {
            let listed = parse(bytes).map(|(listed, _)| listed).unwrap_or_default();
            assert!(listed.iter().all(|(prefix, _)| prefix.prefix_len() > 0));
            let _: Vec<_> = listed.into_iter().map(entry).collect();
        });
    }
}
