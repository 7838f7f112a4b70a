//! How many packets each feed refused.

use std::{fmt::Write as _, fs, net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    daemon::Daemon,
    frames,
    product::{Site, WAN, wait_for},
    require,
    sources::{judge_all, try_one_source},
    wire::Wire,
};
use serde_json::Value;
use tempfile::TempDir;

/// Names of feeds, and what each refused.
type Counts<'n> = [(&'n str, Option<u64>)];

struct Feeds(TempDir);

impl Feeds {
    /// Writes the files of these feeds, and a configuration that names them in this order.
    fn configure(&self, feeds: &[(&str, &str)]) -> Result<()> {
        let mut config = format!("interfaces = [\"{WAN}\"]\n");
        for (name, prefixes) in feeds {
            let path = self.at(name);
            fs::write(&path, prefixes)?;
            let list = if *name == "friends" { "allow" } else { "deny" };
            let path = path.display();
            writeln!(
                config,
                "[feeds.{name}]\nkind = \"file\"\npath = \"{path}\"\nlist = \"{list}\""
            )?;
        }
        Ok(fs::write(self.at("ctguard.toml"), config)?)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, site: &Site) -> Result<Daemon> {
        site.start(&["run", "--config", &self.at("ctguard.toml").display().to_string()])
    }
}

/// Fails when a refused packet counts for the wrong feed, for two, or for none, or when a count is lost
/// with the daemon or goes to another feed.
#[test]
fn each_feed_tells_how_many_packets_it_refused_as_long_as_it_is_followed() -> Result<()> {
    if !require::root("each_feed_tells_how_many_packets_it_refused_as_long_as_it_is_followed") {
        return Ok(());
    }
    let (site, feeds) = (Site::build()?, Feeds(tempfile::tempdir()?));
    feeds.configure(&[
        ("abuse", "192.0.2.5\n192.0.2.7\n2001:db8::/48\n"),
        ("bots", "192.0.2.6\n192.0.2.7\n192.0.2.8\n192.0.2.9\n"),
        ("friends", "192.0.2.9\n"),
    ])?;
    let daemon = feeds.start(&site)?;
    wait_for_refused(&site, &[("abuse", Some(0)), ("bots", Some(0)), ("friends", None)])?;
    wait_until_listed(&site, &["192.0.2.5", "192.0.2.6", "2001:db8::1"])?;
    site.succeed(&["deny", "add", "192.0.2.8"])?;

    let wire = site.wire()?;
    deny(&site, &wire, 5, 20)?;
    deny(&site, &wire, 6, 30)?;
    ensure_refused(&site, &[("abuse", Some(20)), ("bots", Some(30)), ("friends", None)])?;
    // Both list it.
    deny(&site, &wire, 7, 10)?;
    let ([source, router], port): ([IpAddr; 2], u16) =
        (["2001:db8::5".parse()?, "2001:db8:1::1".parse()?], 9);
    let of_ipv6 = judge_all(&site, &wire, 7, |flow| frames::udp((source, flow), (router, port)))?;
    ensure!(of_ipv6.deny == 7, "{of_ipv6:?}");
    // Listed too, but allowed; listed too, but denied by the operator before.
    ensure!(try_one_source(&site, &wire, 9, 5)?.admitted == 5);
    deny(&site, &wire, 8, 40)?;
    let refused = [("abuse", Some(37)), ("bots", Some(30)), ("friends", None)];
    ensure_refused(&site, &refused)?;
    let status = site.status()?;
    ensure!(status["lists"]["refused_packets"] == 40, "{status}");
    ensure!(status["feeds"]["feeds"][0]["refused_packets"] == 37, "{status}");
    let text = site.succeed(&["feeds"])?;
    ensure!(text.contains("bots: deny, 4 prefixes, 30 packets refused, last read"), "{text}");
    let text = site.succeed(&["status"])?;
    ensure!(text.contains("feed    abuse: 3 prefixes denied, 37 packets refused\n"), "{text}");
    let metrics = site.succeed(&["metrics"])?;
    for line in [
        "ctguard_feed_refused_packets_total{feed=\"abuse\"} 37\n",
        "ctguard_feed_refused_packets_total{feed=\"bots\"} 30\n",
        "ctguard_list_refused_packets_total{list=\"deny\"} 40\n",
        "ctguard_packets_total{outcome=\"denied\"} 107\n",
    ] {
        ensure!(metrics.contains(line), "{line} is not in {metrics}");
    }
    ensure!(!metrics.contains("packets_total{feed=\"friends\"}"), "{metrics}");
    ensure!(!metrics.contains("reason=\"deny\""), "they are no flows: {metrics}");

    daemon.kill()?;
    deny(&site, &wire, 6, 5)?;
    // In another order, and with one more.
    feeds.configure(&[
        ("first", "203.0.113.1\n"),
        ("bots", "192.0.2.6\n192.0.2.7\n"),
        ("abuse", "192.0.2.5\n192.0.2.7\n"),
    ])?;
    let _daemon = feeds.start(&site)?;
    wait_for_refused(&site, &[("abuse", Some(37)), ("bots", Some(35)), ("first", Some(0))])?;

    // A new feed gets the number of one that goes.
    feeds.configure(&[("other", "192.0.2.5\n"), ("bots", "192.0.2.6\n192.0.2.7\n")])?;
    site.succeed(&["reload"])?;
    wait_for_refused(&site, &[("other", Some(0)), ("bots", Some(35))])?;
    wait_until_listed(&site, &["192.0.2.5"])?;
    deny(&site, &wire, 5, 3)?;
    deny(&site, &wire, 7, 4)?;
    ensure_refused(&site, &[("other", Some(3)), ("bots", Some(39))])
}

/// Sends packets of a source that is denied.
fn deny(site: &Site, wire: &Wire, source: u8, packets: u16) -> Result<()> {
    let tried = try_one_source(site, wire, source, packets)?;
    ensure!(tried.deny == u64::from(packets), "192.0.2.{source}: {tried:?}");
    Ok(())
}

fn refused(site: &Site) -> Result<Vec<(String, Option<u64>)>> {
    let answer = site.ctguard(&["feeds", "--json"])?;
    let report: Value = serde_json::from_str(&answer.out).with_context(|| format!("{answer:?}"))?;
    let feeds = report["feeds"].as_array().with_context(|| format!("{report}"))?;
    let count = |feed: &Value| {
        let name = feed["name"].as_str().unwrap_or_default().to_owned();
        (name, feed["refused_packets"].as_u64())
    };
    Ok(feeds.iter().map(count).collect())
}

fn is(told: &[(String, Option<u64>)], expected: &Counts<'_>) -> bool {
    told.iter().map(|(name, count)| (&name[..], *count)).eq(expected.iter().copied())
}

fn ensure_refused(site: &Site, expected: &Counts<'_>) -> Result<()> {
    let told = refused(site)?;
    ensure!(is(&told, expected), "{told:?} and not {expected:?}");
    Ok(())
}

/// Waits until exactly these feeds are told.
fn wait_for_refused(site: &Site, expected: &Counts<'_>) -> Result<()> {
    wait_for(&format!("{expected:?}"), || Ok(is(&refused(site)?, expected).then_some(())))
}

fn wait_until_listed(site: &Site, addresses: &[&str]) -> Result<()> {
    addresses.iter().try_for_each(|address| {
        wait_for(&format!("{address} to be denied"), || {
            Ok((site.ctguard(&["deny", "list", address])?.code == Some(0)).then_some(()))
        })
    })
}
