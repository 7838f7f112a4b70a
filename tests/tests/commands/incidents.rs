//! `incidents`.

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Site, WAN, wait_for},
    require,
    sources::try_sources,
    sysctl::HostSysctl,
};
use serde_json::Value;

/// Fails when a time of pressure leaves no record, or when the record is gone with the daemon.
#[test]
fn a_time_of_pressure_is_an_incident_that_outlives_the_daemon() -> Result<()> {
    if !require::root("a_time_of_pressure_is_an_incident_that_outlives_the_daemon") {
        return Ok(());
    }
    let site = Site::build()?;
    let state = site.state();
    let state = state.to_str().context("a path of letters")?;
    let incidents =
        |more: &[&str]| site.succeed(&[&["incidents", "--state", state], more].concat());
    ensure!(incidents(&[])?.starts_with("no incidents"));
    let _small = HostSysctl::set("net.netfilter.nf_conntrack_max", "2048")?;
    let daemon = site.guard()?;
    let wire = site.wire()?;
    try_sources(&site, &wire, 1, 600)?;
    let first = || -> Result<Option<Value>> {
        let told: Value = serde_json::from_str(&incidents(&["--json"])?)?;
        Ok(told.pointer("/incidents/0").cloned())
    };
    wait_for("the incident", first)?;
    ensure!(daemon.stop()?.success());

    let incident = first()?.context("it outlives the daemon")?;
    ensure!(incident["number"] == 1 && incident["ended"].is_null(), "{incident}");
    ensure!(incident["max_entries"] == 2048, "{incident}");
    let highest = incident.pointer("/classes/udp/highest_stage");
    ensure!(highest.is_some_and(|highest| highest != "calm"), "{incident}");
    let people = incidents(&[])?;
    ensure!(people.starts_with("incident 1: ") && people.contains(" of 2048 entries"), "{people}");
    println!("{people}");
    let service = incident.pointer("/services/0").context("a service")?;
    ensure!(service["protocol"] == "udp" && service["port"].is_u64(), "{service}");
    ensure!(incident["target_ratio"] == 0.85, "{incident}");
    let points = incident.pointer("/series/entries").and_then(Value::as_array);
    ensure!(points.is_some_and(|points| !points.is_empty()), "{incident}");

    let page = site.succeed(&["report", "--state", state])?;
    ensure!(page.starts_with("<!DOCTYPE html>") && page.contains("Incident 1 on"), "{page}");
    ensure!(page.contains("of 2,048 entries") && page.contains("<svg"), "{page}");
    let file = site.state().join("page.html");
    let path = file.to_str().context("a path of letters")?;
    ensure!(site.succeed(&["report", "1", "-o", path, "--state", state])?.is_empty());
    ensure!(std::fs::read_to_string(&file)?.len() > page.len() / 2);
    let none = site.ctguard(&["report", "9", "--state", state])?;
    let told = none.refusal(1)?;
    ensure!(told == "there is no incident 9; to list them: ctguard incidents", "{told}");

    let daemon = site.start(&["run", "-i", WAN])?;
    try_sources(&site, &wire, 2, 600)?;
    wait_for("the next incident", || {
        let told: Value = serde_json::from_str(&incidents(&["--json"])?)?;
        Ok(told.pointer("/incidents/1/number").filter(|number| **number == 2).map(|_| ()))
    })?;
    ensure!(daemon.stop()?.success());
    Ok(())
}
