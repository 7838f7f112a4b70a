//! A list as a file has it: one address or prefix a line.
//!
//! `#` and `;` begin a remark. Anything else behind a prefix is a mistake: of lines such as
//! `192.0.2.0 192.0.2.255 24` (of `DShield`) the first word alone would list something else.

use std::net::IpAddr;

use ctguard_settings::{PrefixError, parse_listed};
use ipnet::IpNet;
use thiserror::Error;

/// How much of a line is quoted.
const QUOTED: usize = 60;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub(super) struct LineError {
    line: usize,
    problem: Problem,
}

#[derive(Debug, Error, PartialEq, Eq)]
enum Problem {
    #[error("{0}")]
    Prefix(#[from] PrefixError),
    #[error("one address or prefix a line; write ; or # before remarks: {0}")]
    More(String),
}

/// # Errors
/// The first line that is no prefix: nothing of such a file is used.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<IpNet>, LineError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut prefixes = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let end = line.iter().position(|byte| b"#;".contains(byte)).unwrap_or(line.len());
        let text = line[..end].trim_ascii();
        if !text.is_empty() {
            let prefix =
                parse_line(text).map_err(|problem| LineError { line: index + 1, problem })?;
            prefixes.push(prefix);
        }
    }
    Ok(prefixes)
}

fn parse_line(text: &[u8]) -> Result<IpNet, Problem> {
    let whole = String::from_utf8_lossy(text);
    let quoted = || whole.chars().take(QUOTED).collect::<String>();
    if text.iter().any(u8::is_ascii_whitespace) {
        return Err(Problem::More(quoted()));
    }
    parse_listed(&whole).map_err(|error| match error {
        PrefixError::Syntax { .. } => PrefixError::Syntax { text: quoted() }.into(),
        error @ PrefixError::Everybody { .. } => error.into(),
    })
}

/// The prefixes that hold all addresses from `first` to `last` and no others.
pub(super) fn range(first: IpAddr, last: IpAddr) -> Option<Vec<IpNet>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Some(ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Some(ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let prefixes = parse(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok(prefixes.iter().map(ToString::to_string).collect())
    }

    /// Lines of `FireHOL`, Spamhaus and hand-made lists.
    #[test]
    fn lists_as_they_are_published_are_read() {
        let text = "\u{feff}# remark\r\n\n192.0.2.7\r\n198.51.100.0/24 ; SBL1\n  2001:DB8:0:0::1\n;\n\
                    198.51.100.77/25#x\n::ffff:203.0.113.5\n::ffff:203.0.113.0/120";
        let prefixes = ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::1/128", "198.51.100.0/25"];
        let mapped = ["203.0.113.5/32", "203.0.113.0/24"];
        assert_eq!(shown(text).unwrap(), [&prefixes[..], &mapped].concat());
        assert_eq!(shown("").unwrap(), [""; 0]);
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_and_text() {
        for (text, message) in [
            ("192.0.2.7\n192.0.2", "line 2: 192.0.2 is not an IPv4 or IPv6 prefix"),
            ("\n192.0.2.0 192.0.2.255 24", "line 2: one address or prefix a line; write ; or #"),
            ("0.0.0.0/0", "line 1: 0.0.0.0/0 is everybody"),
            ("::ffff:0:0/96", "line 1: ::ffff:0:0/96 is everybody"),
            ("192.0.2.1-192.0.2.9", "line 1: 192.0.2.1-192.0.2.9 is not an"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
        let error = parse(&[b'1'; 10_000]).unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
        assert!(parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn a_range_is_the_prefixes_that_hold_it_and_no_more() {
        let of = |first: &str, last: &str| {
            let prefixes = range(first.parse().unwrap(), last.parse().unwrap());
            prefixes.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let parts = ["192.0.2.5/32", "192.0.2.6/31", "192.0.2.8/32"].map(str::to_owned);
        assert_eq!(of("192.0.2.5", "192.0.2.8"), Some(parts.to_vec()));
        assert_eq!(of("2001:db8::", "2001:db8::ff"), Some(vec!["2001:db8::/120".to_owned()]));
        assert_eq!(of("192.0.2.5", "2001:db8::"), None);
        assert_eq!(of("192.0.2.5", "192.0.2.4"), None);
    }

    #[test]
    fn a_damaged_list_is_refused_or_read_as_another_one() {
        let text = "\u{feff}# x\r\n192.0.2.7\n198.51.100.0/24 ; SBL1\n2001:db8::1\n::ffff:203.0.113.0/120\n";
        ctguard_damage::survives!(&[text.as_bytes()], |bytes: &[u8]| {
            let lines = bytes.split(|&byte| byte == b'\n').count();
            assert!(parse(bytes).is_ok_and(|all| all.len() <= lines) || parse(bytes).is_err());
            assert!(parse(bytes).unwrap_or_default().iter().all(|prefix| prefix.prefix_len() > 0));
        });
    }
}
