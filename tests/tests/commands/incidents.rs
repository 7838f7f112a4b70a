//! `incidents`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Site, WAN, wait_for},
    require,
    sources::try_sources,
    sysctl::HostSysctl,
};
use serde_json::Value;

/// A configuration with a hook that writes what it hears into a file, and fails.
struct Hook(PathBuf);

impl Hook {
    fn write(state: &Path, told: &Path) -> Result<Self> {
        let (config, script) = (state.with_extension("toml"), state.with_extension("sh"));
        let lines =
            "#!/bin/sh\ncat >\"$1.new\" && mv \"$1.new\" \"$1\"\necho it said so >&2\nexit 9\n";
        fs::write(&script, lines)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let hook = [&*script, told].map(|path| format!("\"{}\"", path.display())).join(", ");
        fs::write(&config, format!("incidents.hook = [{hook}]\n"))?;
        Ok(Self(config))
    }

    fn config(&self) -> Result<&str> {
        self.0.to_str().context("a path of letters")
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        for extension in ["toml", "sh", "told"] {
            let _ = fs::remove_file(self.0.with_extension(extension));
        }
    }
}

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
    let told = site.state().with_extension("told");
    let hook = Hook::write(&site.state(), &told)?;
    let _small = HostSysctl::set("net.netfilter.nf_conntrack_max", "2048")?;
    let daemon = site.start(&["run", "-i", WAN, "--config", hook.config()?])?;
    let wire = site.wire()?;
    try_sources(&site, &wire, 1, 600)?;
    let first = || -> Result<Option<Value>> {
        let told: Value = serde_json::from_str(&incidents(&["--json"])?)?;
        Ok(told.pointer("/incidents/0").cloned())
    };
    wait_for("the incident", first)?;
    let heard = wait_for("the hook", || {
        let heard = fs::read_to_string(&told).unwrap_or_default();
        Ok(serde_json::from_str::<Value>(&heard).ok())
    })?;
    ensure!(heard.pointer("/incidents/0/number") == Some(&1.into()), "{heard}");
    ensure!(
        heard["schema_version"].is_u64() && heard["incidents"][0]["ended"].is_null(),
        "{heard}"
    );
    // The daemon has a state directory of its own.
    ensure!(site.succeed(&["incidents"])?.starts_with("incident 1: "));
    ensure!(site.succeed(&["report"])?.contains("Incident 1 on"));
    wait_for("the event about its failure", || {
        let events = site.succeed(&["events", "--json"])?;
        Ok(events.contains("exit status: 9: it said so").then_some(()))
    })?;
    ensure!(daemon.stop()?.success());

    let incident = first()?.context("it outlives the daemon")?;
    ensure!(incident["number"] == 1 && incident["ended"].is_string(), "{incident}");
    ensure!(incident["daemon_ended"] == true, "{incident}");
    ensure!(incident["max_entries"] == 2048, "{incident}");
    let highest = incident.pointer("/classes/udp/highest_stage");
    ensure!(highest.is_some_and(|highest| highest != "calm"), "{incident}");
    let people = incidents(&[])?;
    ensure!(people.starts_with("incident 1: ") && people.contains(" of 2048 entries"), "{people}");
    println!("{people}");
    ensure!(incident["services"].is_array(), "{incident}");
    ensure!(incident["target_ratio"] == 0.85, "{incident}");
    let points = incident.pointer("/series/entries").and_then(Value::as_array);
    ensure!(points.is_some_and(|points| !points.is_empty()), "{incident}");

    let page = site.succeed(&["report", "--state", state])?;
    ensure!(page.starts_with("<!DOCTYPE html>") && page.contains("Incident 1 on"), "{page}");
    ensure!(page.contains("of 2,048 entries") && page.contains("<svg"), "{page}");
    let file = site.state().join("page.html");
    let path = file.to_str().context("a path of letters")?;
    ensure!(site.succeed(&["report", "1", "-o", path, "--state", state])?.is_empty());
    ensure!(fs::read_to_string(&file)?.len() > page.len() / 2);
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
