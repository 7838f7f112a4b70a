//! `CrowdSec`'s local API, as one of its bouncers: `/v1/decisions/stream`.
//!
//! Seen with 1.4.6: a change may be lost that comes while another is pulled, of several bans of one
//! address only the longest is told, and the end of that one hides the others. So all decisions are pulled
//! again each minute (`startup=true`), and changes only in between.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::{Duration, Instant},
};

use ctguard_kernel::maps::Entry;
use ctguard_settings::parse_listed;
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    http::{self, Request},
    reader::{Reading, end_after},
};

const WHOLE: Duration = Duration::from_mins(1);
const LONGEST_KEY: u64 = 1024;

#[derive(Deserialize)]
struct Stream {
    new: Option<Vec<Decision>>,
    deleted: Option<Vec<Decision>>,
}

#[derive(Deserialize)]
struct Decision {
    #[serde(default)]
    scope: String,
    #[serde(default)]
    value: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    duration: String,
}

/// The bans that were told, by value as it is spelt: another spelling is another decision there.
#[derive(Debug, Default)]
struct Decisions {
    /// Ends as [`Reading::Read`] has them.
    bans: HashMap<String, Entry>,
    /// Of those pulled last: captchas, countries and others that no list of prefixes can hold.
    ignored: u64,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    decisions: Decisions,
    whole: Option<Instant>,
}

impl Client {
    pub(super) fn read(&mut self, host: &str, port: u16, key_file: &Path) -> Reading {
        match self.try_read(host, port, key_file) {
            Ok(()) => {
                let Decisions { bans, ignored } = &self.decisions;
                let entries = Some(bans.values().copied().collect());
                Reading::Read { entries, ignored: *ignored, note: None, fault: None }
            }
            Err(fault) => {
                self.whole = None;
                Reading::failed(fault)
            }
        }
    }

    fn try_read(&mut self, host: &str, port: u16, key_file: &Path) -> Result<(), String> {
        let key = read_key(key_file)
            .map_err(|error| format!("cannot use the key in {}: {error}", key_file.display()))?;
        let began = Instant::now();
        let is_whole = self.whole.is_none_or(|at| began.duration_since(at) >= WHOLE);
        let path = format!("/v1/decisions/stream?startup={is_whole}");
        let answer = http::get(&Request { host, port, path: &path, key: &key })?;
        self.decisions.take(&answer, is_whole)?;
        if is_whole {
            self.whole = Some(began);
        }
        Ok(())
    }
}

impl Decisions {
    fn take(&mut self, answer: &[u8], is_whole: bool) -> Result<(), String> {
        let stream: Stream = serde_json::from_slice(answer)
            .map_err(|error| format!("the API answers something unknown: {error}"))?;
        if is_whole {
            *self = Self::default();
        } else {
            for decision in stream.deleted.unwrap_or_default() {
                // The end of a captcha does not end a ban.
                if decision.is_ban() {
                    self.bans.remove(&decision.value);
                }
            }
        }
        for decision in stream.new.unwrap_or_default() {
            let Some(prefix) = decision.prefix() else {
                self.ignored += 1;
                continue;
            };
            let Some(left) = duration(&decision.duration) else {
                self.ignored += 1;
                continue;
            };
            let expires_at = end_after(left);
            self.bans.insert(decision.value, Entry { prefix, expires_at });
        }
        Ok(())
    }
}

impl Decision {
    fn is_ban(&self) -> bool {
        self.kind.eq_ignore_ascii_case("ban")
    }

    fn prefix(&self) -> Option<IpNet> {
        let is_address = ["ip", "range"].iter().any(|it| self.scope.eq_ignore_ascii_case(it));
        if !is_address || !self.is_ban() {
            return None;
        }
        parse_listed(&self.value).ok()
    }
}

/// A duration of Go that is not over, such as `3h59m58.5s`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" || text == "0s" {
        return None;
    }
    let (mut rest, mut seconds) = (text.strip_prefix('+').unwrap_or(text), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|left| !left.is_zero())
}

fn read_key(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_KEY).read_to_string(&mut text)?;
    let key = text.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(io::Error::other("it is not a key"));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(scope: &str, value: &str, kind: &str, duration: &str) -> String {
        format!(
            r#"{{"duration":"{duration}","id":7,"origin":"cscli","scenario":"manual 'ban' from x",
            "scope":"{scope}","type":"{kind}","value":"{value}"}}"#
        )
    }

    fn answer(new: &[String], deleted: &[String]) -> String {
        let list = |all: &[String]| match all {
            [] => "null".to_owned(),
            all => format!("[{}]", all.join(",")),
        };
        format!(r#"{{"deleted":{},"new":{}}}"#, list(deleted), list(new))
    }

    fn bans(decisions: &Decisions) -> Vec<String> {
        let mut all: Vec<_> =
            decisions.bans.values().map(|entry| entry.prefix.to_string()).collect();
        all.sort();
        all
    }

    #[test]
    fn bans_of_addresses_and_ranges_are_taken_and_others_are_counted() {
        let mut decisions = Decisions::default();
        let new = [
            decision("Ip", "192.0.2.7", "ban", "3h59m58.123456789s"),
            decision("Range", "198.51.100.77/24", "ban", "1h"),
            decision("Ip", "2001:DB8:0:0::1", "ban", "1h"),
            decision("ip", "::ffff:192.0.2.77", "ban", "1h"),
            decision("Range", "0.0.0.0/0", "ban", "1h"),
            decision("Ip", "192.0.2.8", "captcha", "1h"),
            decision("Country", "XX", "ban", "1h"),
            decision("Ip", "192.0.2.9", "ban", "-1m2s"),
            decision("Ip", "192.0.2.10", "ban", "-9.83ms"),
        ];
        decisions.take(answer(&new, &[]).as_bytes(), true).unwrap();
        let expected = ["192.0.2.7/32", "192.0.2.77/32", "198.51.100.0/24", "2001:db8::1/128"];
        assert_eq!((bans(&decisions), decisions.ignored), (expected.map(str::to_owned).into(), 5));
    }

    #[test]
    fn changes_are_applied_and_a_whole_answer_begins_anew() {
        let ban = |value: &str| decision("Ip", value, "ban", "1h");
        let mut decisions = Decisions::default();
        decisions.take(answer(&[], &[]).as_bytes(), true).unwrap();
        let new = [ban("192.0.2.1"), ban("192.0.2.2"), ban("192.0.2.3")];
        decisions.take(answer(&new, &[]).as_bytes(), false).unwrap();
        // Deleted ones have a negative duration, and are told again in later polls.
        let gone = |kind| decision("Ip", "192.0.2.2", kind, "-1m2s");
        decisions.take(answer(&[], &[gone("captcha")]).as_bytes(), false).unwrap();
        assert_eq!(bans(&decisions).len(), 3, "the end of a captcha ends no ban");
        decisions.take(answer(&[], &[gone("ban")]).as_bytes(), false).unwrap();
        assert_eq!(bans(&decisions), ["192.0.2.1/32", "192.0.2.3/32"]);
        decisions.take(answer(&[ban("192.0.2.2")], &[gone("ban")]).as_bytes(), false).unwrap();
        assert_eq!(bans(&decisions).len(), 3, "banned again at once");
        decisions.take(answer(&[ban("192.0.2.3")], &[ban("192.0.2.3")]).as_bytes(), true).unwrap();
        assert_eq!(bans(&decisions), ["192.0.2.3/32"]);
    }

    #[test]
    fn an_answer_that_is_none_leaves_all_as_it_was() {
        let mut decisions = Decisions::default();
        let new = [decision("Ip", "192.0.2.1", "ban", "1h")];
        decisions.take(answer(&new, &[]).as_bytes(), true).unwrap();
        for text in ["", "[]", "{\"new\":[{\"value\":7}]}", "<html>", "{\"new\":[", "null"] {
            assert!(decisions.take(text.as_bytes(), true).is_err(), "{text}");
        }
        assert_eq!(bans(&decisions), ["192.0.2.1/32"]);
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in
            [("3h59m58.5s", 14_398_500), ("1.5h", 5_400_000), ("4ms", 4), ("1h0m0.25s", 3_600_250)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("100µs"), Some(Duration::from_micros(100)));
        for text in ["", "0s", "-1m2s", "-9.83ms", "5", "h", "1x", "1h-2m", "99999999999999999999h"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_one_word() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for (text, key) in [("abc+/=\n", Some("abc+/=")), ("", None), ("a\nb", None), ("ä", None)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_key(&path).ok().as_deref(), key, "{text:?}");
        }
    }

    #[test]
    fn a_damaged_answer_is_refused_or_read_as_another_one() {
        let new = [
            decision("Ip", "192.0.2.7", "ban", "3h59m58.123456789s"),
            decision("Range", "2001:db8::/48", "ban", "99999999h"),
        ];
        let gone = decision("Ip", "192.0.2.2", "ban", "-1m2s");
        let answer = answer(&new, &[gone]);
        ctguard_damage::survives!(&[answer.as_bytes()], |bytes: &[u8]| {
            let mut decisions = Decisions::default();
            let _ = decisions.take(bytes, false);
            assert!(decisions.bans.values().all(|entry| entry.prefix.prefix_len() > 0));
        });
    }
}
