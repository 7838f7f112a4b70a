//! The record of regulars that a guard starts with: the only place of the lab that knows its
//! format (`ctguard-userspace/src/daemon/state_file.rs`).

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::netns::Handle;

/// Seen in so many calm minutes: a regular for weeks.
const SCORE: f64 = 1000.0;

/// Writes a record for the guard of a namespace that holds these addresses, and nothing else, into
/// the directory.
pub fn write(directory: &Path, namespace: &Handle, addresses: &[IpAddr]) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(format!("regulars-netns-{}.jsonl", namespace.name()));
    let now = SystemTime::UNIX_EPOCH.elapsed().context("the clock stands before 1970")?;
    fs::write(&path, record(addresses, now.as_secs_f64()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn record(addresses: &[IpAddr], as_of: f64) -> String {
    let header = json!({ "format": 1, "as_of": as_of });
    let lines =
        addresses.iter().map(|address| json!({ "source": scope(*address), "score": SCORE }));
    let lines: Vec<String> =
        [header].into_iter().chain(lines).map(|line| line.to_string()).collect();
    lines.join("\n") + "\n"
}

/// What a guard counts as one source: an IPv4 address, or an IPv6 network of 64 bits.
fn scope(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let network = u128::from(ip) & (u128::MAX << 64);
            format!("{}/64", Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::Family;

    #[test]
    fn a_record_is_a_header_and_a_line_for_each_source() {
        let addresses = [Family::Ipv4, Family::Ipv6].map(|family| family.far_client(0));
        let text = record(&addresses, 5.0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                r#"{"as_of":5.0,"format":1}"#,
                r#"{"score":1000.0,"source":"198.19.8.1"}"#,
                r#"{"score":1000.0,"source":"2001:db8:100:1::/64"}"#,
            ]
        );
    }
}
