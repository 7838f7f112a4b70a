//! `allow` and `deny`.

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::ListEntry;
use ctguard_tests::{
    frames,
    product::{Site, WAN, wait_for},
    require,
    sources::{Tried, try_one_source},
};
use serde_json::Value;

use crate::with_and_without_daemon;

/// The source of `try_one_source`'s round 5, its network, and one that holds it not.
const SOURCE: &str = "192.0.2.5";
const NETWORK: &str = "192.0.2.0/24";

/// Fails when a prefix is not denied with the next packet, or goes on being denied.
#[test]
fn a_denied_prefix_gets_nothing_through_until_it_is_removed() -> Result<()> {
    if !require::root("a_denied_prefix_gets_nothing_through_until_it_is_removed") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let wire = site.wire()?;
        for prefix in [SOURCE, NETWORK] {
            let said = site.succeed(&["deny", "add", prefix])?;
            ensure!(said.contains("192.0.2."), "{said}");
            let denied = try_one_source(site, &wire, 5, 20)?;
            ensure!(denied == Tried { deny: 20, ..Tried::default() }, "{prefix}: {denied:?}");
            site.succeed(&["deny", "del", prefix])?;
        }
        let admitted = try_one_source(site, &wire, 5, 20)?;
        ensure!(admitted.admitted == 20, "{admitted:?}");
        Ok(())
    })
}

/// Fails when an allowed source has a ceiling, or is one for longer than it was asked for.
#[test]
fn an_allowed_prefix_skips_its_ceiling_for_as_long_as_it_lasts() -> Result<()> {
    if !require::root("an_allowed_prefix_skips_its_ceiling_for_as_long_as_it_lasts") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let wire = site.wire()?;
        site.succeed(&["set", "source.udp.rate=1", "source.udp.burst=1"])?;
        site.succeed(&["allow", "add", SOURCE])?;
        let allowed = try_one_source(site, &wire, 5, 100)?;
        ensure!(allowed.admitted == 100, "{allowed:?}");
        ensure!(site.number("/counters/udp/allowed")? >= 100);

        site.succeed(&["allow", "add", SOURCE, "--for", "50ms"])?;
        wait_for("the entry's end", || {
            let listed = site.succeed(&["allow", "list"])?;
            Ok((!listed.contains(SOURCE)).then_some(()))
        })?;
        let before = site.number("/counters/udp/allowed")?;
        // The flows of before are known and tell nothing: others, from the same source.
        try_one_source_elsewhere(site)?;
        ensure!(site.number("/counters/udp/allowed")? == before, "it is a stranger again");
        Ok(())
    })
}

/// Fails when an operator who denies a network is not told whom else that hits.
#[test]
fn a_denied_network_is_said_to_go_before_what_is_allowed_in_it() -> Result<()> {
    if !require::root("a_denied_network_is_said_to_go_before_what_is_allowed_in_it") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.start(&["run", "-i", WAN])?;
    site.succeed(&["allow", "add", "198.51.100.7"])?;
    ensure!(!site.succeed(&["deny", "add", NETWORK])?.contains("allow list"), "it holds nobody");
    site.succeed(&["allow", "add", SOURCE])?;
    let said = site.succeed(&["deny", "add", NETWORK])?;
    let told = "although the allow list has 192.0.2.5/32: the deny list goes first";
    ensure!(said.contains(told), "{said}");
    site.succeed(&["allow", "add", "192.0.2.9"])?;
    let said = site.succeed(&["deny", "add", NETWORK, "--for", "1h"])?;
    ensure!(said.contains("/32 and 1 more in it: the deny list"), "{said}");
    let answer = site.ctguard(&["deny", "add", NETWORK, "--for", "1x"])?;
    ensure!(answer.refusal(2)?.ends_with("1x: not a time (write 10m or 2h 30m)"), "{answer:?}");
    Ok(())
}

/// Fails when an entry that has ended goes on hiding a wider one that holds.
#[test]
fn an_entry_that_ended_uncovers_the_wider_one() -> Result<()> {
    if !require::root("an_entry_that_ended_uncovers_the_wider_one") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.start(&["run", "-i", WAN])?;
    site.succeed(&["deny", "add", NETWORK])?;
    site.succeed(&["deny", "add", SOURCE, "--for", "50ms"])?;
    wait_for("the entry's end", || {
        Ok((!site.succeed(&["deny", "list"])?.contains(SOURCE)).then_some(()))
    })?;
    let wire = site.wire()?;
    let denied = || site.number("/counters/udp/refused/deny");
    let before = denied()?;
    let mut port = 1024;
    wait_for("a verdict by the wider entry", || {
        port += 1;
        wire.send(&from_source(port)?)?;
        Ok((denied()? > before).then_some(()))
    })
}

fn try_one_source_elsewhere(site: &Site) -> Result<()> {
    let seen = site.number("/counters/udp/seen")?;
    let wire = site.wire()?;
    (5000..5010).try_for_each(|port| wire.send(&from_source(port)?))?;
    wait_for("ten verdicts", || Ok((site.number("/counters/udp/seen")? >= seen + 10).then_some(())))
}

/// A new flow from [`SOURCE`] that `try_one_source` does not open.
fn from_source(port: u16) -> Result<Vec<u8>> {
    frames::udp((SOURCE.parse()?, port), ("198.51.100.2".parse()?, 9))
}

/// Fails when a list shows other entries or ends than it has.
#[test]
fn a_list_shows_what_it_holds_and_for_how_long() -> Result<()> {
    if !require::root("a_list_shows_what_it_holds_and_for_how_long") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        for verb in ["allow", "deny"] {
            let list = |more: &[&str]| site.ctguard(&[&[verb, "list"], more].concat());
            ensure!(list(&[])?.out.is_empty(), "{verb}: empty at first");
            let said = site.succeed(&[verb, "add", "198.51.100.77/24"])?;
            ensure!(said.contains("198.51.100.0/24"), "bits behind the prefix are cut: {said}");
            site.succeed(&[verb, "add", "2001:db8::/48", "--for", "10m"])?;
            site.succeed(&[verb, "add", "192.0.2.9", "--for", "2h 30m"])?;
            site.succeed(&[verb, "add", "192.0.2.10", "--for", "1ms"])?;
            wait_for("the end of an entry", || {
                Ok((!list(&[])?.out.contains("192.0.2.10")).then_some(()))
            })?;

            let text = list(&[])?.out;
            ensure!(text.lines().count() == 3, "{verb}: {text}");
            ensure!(text.lines().any(|line| line == "198.51.100.0/24"), "{verb}: {text}");
            let json: Value = serde_json::from_str(&list(&["--json"])?.out)?;
            let left = |prefix: &str| {
                let entries = json.pointer("/entries").and_then(Value::as_array);
                let entry = entries?.iter().find(|entry| entry["prefix"] == prefix)?;
                Some(entry["remaining_seconds"].as_u64())
            };
            ensure!(left("198.51.100.0/24") == Some(None), "for good: {json}");
            let ten = left("2001:db8::/48").flatten().context("ten minutes")?;
            ensure!((500..=600).contains(&ten), "{json}");
            let hours = left("192.0.2.9/32").flatten().context("hours")?;
            ensure!((8900..=9000).contains(&hours), "{json}");

            ensure!(list(&["198.51.100.3"])?.code == Some(0), "what holds an address");
            ensure!(list(&["192.0.2.0/24"])?.out.contains("192.0.2.9"), "what lies within");
            ensure!(list(&["203.0.113.1"])?.code == Some(1), "what nothing holds");
            let absent = site.ctguard(&[verb, "del", "203.0.113.0/24"])?;
            ensure!(absent.refusal(1)?.contains("203.0.113.0/24"), "{absent:?}");
            site.succeed(&[verb, "add", "192.0.2.9"])?;
            let text = list(&["192.0.2.9"])?.out;
            ensure!(text.trim() == "192.0.2.9/32", "given another end: {text}");
            for prefix in ["198.51.100.0/24", "2001:db8::/48", "192.0.2.9"] {
                site.succeed(&[verb, "del", prefix])?;
            }
            ensure!(list(&[])?.out.is_empty(), "{verb}: empty at last");
        }
        Ok(())
    })
}

/// Fails when a full list is anything but one clear line.
#[test]
fn a_full_list_says_so() -> Result<()> {
    if !require::root("a_full_list_says_so") {
        return Ok(());
    }
    let site = Site::build()?;
    let _daemon = site.start(&["run", "-i", WAN])?;
    fill(&site)?;
    let answer = site.ctguard(&["deny", "add", "203.0.113.1"])?;
    let line = answer.refusal(1)?;
    ensure!(line.contains("4096") || line.contains("full"), "{line}");
    Ok(())
}

/// Fills the deny list through its pinned map; 4096 commands would take minutes.
fn fill(site: &Site) -> Result<()> {
    use aya::maps::{LpmTrie, Map, MapData, lpm_trie::Key};
    let map = MapData::from_pin(site.pins().join("deny_v4"))?;
    let mut trie: LpmTrie<_, [u8; 4], [u8; size_of::<ListEntry>()]> =
        Map::LpmTrie(map).try_into()?;
    for entry in 0..ListEntry::CAPACITY {
        let [_, _, high, low] = entry.to_be_bytes();
        trie.insert(&Key::new(32, [10, 7, high, low]), [0; size_of::<ListEntry>()], 0)?;
    }
    Ok(())
}
