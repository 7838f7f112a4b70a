//! `events`.

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Site, WAN, wait_for},
    require,
    sources::try_sources,
    sysctl::HostSysctl,
};
use serde_json::Value;

/// Fails when a change of stage leaves no event with its numbers, or when events are gone with the
/// daemon that they tell of.
#[test]
fn a_change_of_stage_is_an_event_that_outlives_the_daemon() -> Result<()> {
    if !require::root("a_change_of_stage_is_an_event_that_outlives_the_daemon") {
        return Ok(());
    }
    let site = Site::build()?;
    ensure!(site.succeed(&["events"])?.starts_with("no events"));
    ensure!(site.succeed(&["events", "--json"])?.is_empty());
    // A calm guard grants a 32nd of it at a time.
    let _small = HostSysctl::set("net.netfilter.nf_conntrack_max", "2048")?;
    let daemon = site.guard()?;
    let wire = site.wire()?;
    try_sources(&site, &wire, 1, 600)?;
    let is_change = |event: &&Value| event["event"] == "stage" && event["class"] == "udp";
    let change = wait_for("the event of a change of stage", || {
        Ok(events(&site, &[])?.iter().find(is_change).cloned())
    })?;
    ensure!(change["from"] == "calm" && change["to"] == "fair", "{change}");
    let fill = change["fill_ratio"].as_f64().context("a fill")?;
    let budget = change["budget_per_second"].as_f64().context("a budget")?;
    let demand = change["demand_per_second"].as_f64().context("a demand")?;
    // The guard leaves calm if the room would be taken in twice the time over which it is spread.
    ensure!((0.0..=1.0).contains(&fill) && demand > budget / 2.0, "{change}");
    daemon.stop()?;

    let told = events(&site, &[])?;
    let kind = |event: Option<&Value>| event.map(|event| event["event"].clone());
    ensure!(kind(told.first()) == Some("started".into()), "{told:?}");
    ensure!(told[0]["interfaces"] == Value::from(vec![WAN]), "{told:?}");
    ensure!(kind(told.last()) == Some("stopped".into()), "{told:?}");
    ensure!(site.succeed(&["events", "--last", "0"])?.is_empty());
    ensure!(events(&site, &["--last", "1"])? == told[told.len() - 1..], "the newest");
    let people = site.succeed(&["events"])?;
    ensure!(people.lines().count() == told.len() && people.contains("calm → fair"), "{people}");
    Ok(())
}

/// Fails when nobody can see later who changed what, or when a command that changes nothing says it did.
#[test]
fn what_commands_change_is_an_event_with_or_without_a_daemon() -> Result<()> {
    if !require::root("what_commands_change_is_an_event_with_or_without_a_daemon") {
        return Ok(());
    }
    super::with_and_without_daemon(|site| {
        site.succeed(&["set", "target=70%", "source.udp.burst=9"])?;
        site.succeed(&["set", "target=70%"])?;
        site.succeed(&["deny", "add", "203.0.113.7/24", "--for", "1h"])?;
        site.succeed(&["deny", "del", "203.0.113.0/24"])?;
        ensure!(site.ctguard(&["deny", "del", "203.0.113.0/24"])?.code == Some(1));
        let told = events(site, &[])?;
        let changes = told.iter().filter(|event| event["event"] == "changed");
        let changes: Vec<_> = changes.map(|event| event["changes"].clone()).collect();
        let lines = [
            vec!["target 85% → 70%", "source.udp.burst 400 → 9"],
            vec!["deny + 203.0.113.0/24 for 1h"],
            vec!["deny - 203.0.113.0/24"],
        ];
        ensure!(changes.ends_with(&lines.map(Value::from)), "{changes:?}");
        Ok(())
    })
}

fn events(site: &Site, more: &[&str]) -> Result<Vec<Value>> {
    let told = site.succeed(&[&["events", "--json"], more].concat())?;
    told.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}
