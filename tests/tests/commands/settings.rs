//! `get` and `set`.

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    product::{Site, WAN, wait_for},
    require,
    sources::{try_one_source, try_sources},
    sysctl::HostSysctl,
    wan,
};
use serde_json::Value;

use crate::with_and_without_daemon;

/// Every key with its default, and another value of it as it is written and as it is shown.
const KEYS: [(&str, &str, &str, &str); 11] = [
    ("target", "85%", "0.8", "80%"),
    ("dry-run", "off", "on", "on"),
    ("fail-open", "off", "true", "on"),
    ("fallback.rate", "1000000/s", "77/s", "77/s"),
    ("answers.rate", "default", "5000/s", "5000/s"),
    ("source.tcp.rate", "50/s", "60", "60/s"),
    ("source.tcp.burst", "200", "61", "61"),
    ("source.udp.rate", "100/s", "62/s", "62/s"),
    ("source.udp.burst", "400", "63", "63"),
    ("source.other.rate", "20/s", "64", "64/s"),
    ("source.other.burst", "50", "65", "65"),
];

/// Fails when a key cannot be read, written or taken back, or shows another value than it has.
#[test]
fn every_key_is_read_set_and_taken_back() -> Result<()> {
    if !require::root("every_key_is_read_set_and_taken_back") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        for (key, default, written, shown) in KEYS {
            let get = || Ok::<_, anyhow::Error>(site.succeed(&["get", key])?.trim().to_owned());
            ensure!(get()? == default, "{key} is {} and not {default}", get()?);
            let said = site.succeed(&["set", &format!("{key}={written}")])?;
            ensure!(said.trim() == format!("{key} {default} → {shown}"), "{said}");
            ensure!(get()? == shown, "{key} is {} and not {shown}", get()?);
            let listed = site.succeed(&["get"])?;
            ensure!(listed.contains(&format!("{key} {shown}\n")), "{listed}");
            site.succeed(&["set", &format!("{key}={default}")])?;
            ensure!(get()? == default, "{key} is {} again and not {default}", get()?);
        }
        let own = format!("interface.{WAN}.source.tcp.rate");
        ensure!(site.succeed(&["get", &own])?.trim() == "default");
        site.succeed(&["set", &format!("{own}=9")])?;
        ensure!(site.succeed(&["get", &own])?.trim() == "9/s");
        site.succeed(&["set", &format!("{own}=default")])?;
        let zone = format!("interface.{WAN}.zone");
        ensure!(site.succeed(&["get", &zone])?.trim() == "0");
        let said = site.succeed(&["set", &format!("{zone}=65535")])?;
        ensure!(said.trim() == format!("{zone} 0 → 65535"), "{said}");
        ensure!(site.number("/interfaces/0/zone")? == 65_535);
        ensure!(site.succeed(&["status"])?.contains(", zone 65535"));
        site.succeed(&["set", &format!("{zone}=default")])?;
        ensure!(site.number("/interfaces/0/zone")? == 0);
        ensure!(!site.succeed(&["status"])?.contains("zone"));
        let json: Value = serde_json::from_str(&site.succeed(&["get", "--json"])?)?;
        for (key, default, ..) in KEYS {
            let setting = json.pointer("/settings").and_then(|settings| settings.get(key));
            let is_unset = default == "default";
            ensure!(setting.is_some_and(|value| value.is_null() == is_unset), "{key}: {json}");
        }
        Ok(())
    })
}

/// Fails when a new ceiling waits for a tick, a restart or a daemon.
#[test]
fn a_new_ceiling_holds_for_the_next_packet() -> Result<()> {
    if !require::root("a_new_ceiling_holds_for_the_next_packet") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let wire = site.wire()?;
        site.succeed(&["set", "source.udp.rate=1", "source.udp.burst=3"])?;
        let strict = try_one_source(site, &wire, 1, 200)?;
        ensure!(strict.admitted >= 3 && strict.source >= 100, "{strict:?}");
        site.succeed(&["set", "source.udp.rate=1000000", "source.udp.burst=1000000"])?;
        let ample = try_one_source(site, &wire, 2, 200)?;
        ensure!(ample.admitted == 200, "{ample:?}");

        let own = format!("interface.{WAN}.source.udp");
        site.succeed(&["set", &format!("{own}.rate=1"), &format!("{own}.burst=3")])?;
        let strict = try_one_source(site, &wire, 3, 200)?;
        ensure!(strict.admitted >= 3 && strict.source >= 100, "the interface's own: {strict:?}");
        site.succeed(&["set", &format!("{own}.rate=default"), &format!("{own}.burst=default")])?;
        let ample = try_one_source(site, &wire, 4, 200)?;
        ensure!(ample.admitted == 200, "and taken back: {ample:?}");
        Ok(())
    })
}

/// Fails when a dry run drops, or its end does not end it.
#[test]
fn a_dry_run_counts_and_drops_nothing_until_it_ends() -> Result<()> {
    if !require::root("a_dry_run_counts_and_drops_nothing_until_it_ends") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let wire = site.wire()?;
        let dropped = || wan::dropped_in_xdp(site.guarded(), WAN);
        site.succeed(&["set", "source.udp.rate=1", "source.udp.burst=1", "dry-run=on"])?;
        let before = dropped()?;
        ensure!(try_one_source(site, &wire, 1, 100)?.source > 0, "it counts");
        ensure!(dropped()? == before, "and drops nothing");
        site.succeed(&["set", "dry-run=off"])?;
        let refused = try_one_source(site, &wire, 2, 100)?.source;
        wait_for("the drops in the device's counters", || {
            Ok((dropped()? - before == refused).then_some(()))
        })
    })
}

/// Fails when a target is not what the grant is reckoned with from the next tick on.
#[test]
fn a_new_target_is_reckoned_with() -> Result<()> {
    if !require::root("a_new_target_is_reckoned_with") {
        return Ok(());
    }
    let site = Site::build()?;
    // Of a small table a tenth and a hundredth are less than the least that is granted.
    let _large = HostSysctl::set("net.netfilter.nf_conntrack_max", "262144")?;
    let _daemon = site.guard()?;
    let max = site.number("/conntrack/max")?;
    let granted_below = |most: u64| {
        wait_for("the grant of a new target", || {
            Ok((site.number("/grant/remaining")? <= most).then_some(()))
        })
    };
    // A calm guard grants a 32nd of the way to the target at a time.
    site.succeed(&["set", "target=10%"])?;
    granted_below(max / 320)?;
    site.succeed(&["set", "target=1%"])?;
    granted_below(max / 3200)?;
    let ratio = site.status()?.pointer("/conntrack/target_ratio").and_then(Value::as_f64);
    ensure!(ratio.is_some_and(|ratio| (ratio - 0.01).abs() < 1e-9), "{ratio:?}");
    site.succeed(&["set", "target=85%"])?;
    wait_for("the grant of the old target", || {
        Ok((site.number("/grant/remaining")? > max / 40).then_some(()))
    })
}

/// Fails when a new fallback rate, which is for
/// times without a daemon, waits for one.
#[test]
fn a_new_fallback_rate_holds_without_a_daemon() -> Result<()> {
    if !require::root("a_new_fallback_rate_holds_without_a_daemon") {
        return Ok(());
    }
    let site = Site::build()?;
    // Half of the free room may be spent at once, so there is little.
    let _small = HostSysctl::set("net.netfilter.nf_conntrack_max", "512")?;
    site.start(&["run", "-i", WAN, "--set", "fallback.rate=1000000"])?.kill()?;
    wait_for("the fallback rate", || {
        let active = site.status()?.pointer("/grant/fallback_active") == Some(&true.into());
        Ok(active.then_some(()))
    })?;
    let wire = site.wire()?;
    ensure!(try_sources(&site, &wire, 1, 500)?.admitted == 500);
    site.succeed(&["set", "fallback.rate=4/s"])?;
    let tried = try_sources(&site, &wire, 2, 500)?;
    ensure!(tried.fallback > 300, "4 a second for 500 flows: {tried:?}");
    site.succeed(&["set", "fail-open=on"])?;
    let tried = try_sources(&site, &wire, 3, 500)?;
    ensure!(tried.admitted == 500, "fail-open: {tried:?}");
    Ok(())
}

/// Fails when one bad assignment lets the good ones beside it through.
#[test]
fn assignments_are_made_all_or_none() -> Result<()> {
    if !require::root("assignments_are_made_all_or_none") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let before = site.succeed(&["get", "--json"])?;
        for bad in ["source.udp.rate=0", "nosuch.key=1", "interface.nosuch0.source.tcp.rate=5"] {
            let answer = site.ctguard(&["set", "target=50%", "source.tcp.rate=99", bad])?;
            answer.refusal(2).with_context(|| bad.to_owned())?;
            ensure!(site.succeed(&["get", "--json"])? == before, "{bad} changed something");
        }
        Ok(())
    })
}
