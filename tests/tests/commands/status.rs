//! `status`, for people and for programs.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{
    frames,
    product::{Site, WAN, wait_for},
    require,
};
use serde_json::Value;

use crate::with_and_without_daemon;

/// What a kind of field looks like.
type Kind = fn(&Value) -> bool;

const NUMBER: Kind = Value::is_u64;
const RATIO: Kind = |value| value.as_f64().is_some_and(|ratio| (0.0..=1.0).contains(&ratio));
const TEXT: Kind = Value::is_string;
const SWITCH: Kind = Value::is_boolean;

/// Fields that programs rely on, by their JSON pointers.
const FIELDS: [(&str, Kind); 26] = [
    ("/schema_version", NUMBER),
    ("/conntrack/count", NUMBER),
    ("/conntrack/max", NUMBER),
    ("/conntrack/fill_ratio", RATIO),
    ("/conntrack/target_ratio", RATIO),
    ("/stage", TEXT),
    ("/stages/tcp", TEXT),
    ("/stages/udp", TEXT),
    ("/stages/other", TEXT),
    ("/grant/remaining", NUMBER),
    ("/limits/tcp/source/rate", NUMBER),
    ("/limits/udp/source/burst", NUMBER),
    ("/limits/other/source/rate", NUMBER),
    ("/interfaces/0/name", TEXT),
    ("/interfaces/0/mode", TEXT),
    ("/new_flow_detection/mode", TEXT),
    ("/dry_run", SWITCH),
    ("/daemon/running", SWITCH),
    ("/counters/tcp/seen", NUMBER),
    ("/counters/tcp/admitted", NUMBER),
    ("/counters/tcp/refused/source", NUMBER),
    ("/counters/udp/refused/grant", NUMBER),
    ("/counters/other/refused/deny", NUMBER),
    ("/counters/packets/known", NUMBER),
    ("/unreadable/share_ratio", RATIO),
    ("/unreadable/is_fault", SWITCH),
];

/// Fails when a field is missing, of another type, or false.
#[test]
fn the_status_has_every_field_and_tells_the_truth() -> Result<()> {
    if !require::root("the_status_has_every_field_and_tells_the_truth") {
        return Ok(());
    }
    with_and_without_daemon(|site| {
        let status = site.status()?;
        for (field, kind) in FIELDS {
            let value = status.pointer(field).with_context(|| format!("no {field} in {status}"))?;
            ensure!(kind(value), "{field} is {value}");
        }
        let first = site.succeed(&["status", "--json"])?;
        ensure!(first.trim_start_matches(['{', ' ', '\n']).starts_with("\"schema_version\""));

        let is = |field: &str, expected: Value| {
            let value = status.pointer(field);
            ensure!(value == Some(&expected), "{field} is {value:?} and not {expected}");
            Ok(())
        };
        is("/interfaces/0/name", WAN.into())?;
        is("/interfaces/0/mode", "native".into())?;
        is("/interfaces/0/attached", true.into())?;
        is("/dry_run", false.into())?;
        let asked = require::has_conntrack_functions();
        let mode = if asked { "conntrack" } else { "flow-cache" };
        is("/new_flow_detection/mode", mode.into())?;
        let reason = status.pointer("/new_flow_detection/reason").context("a reason or null")?;
        ensure!(reason.is_null() == asked, "{status}");
        is("/limits/tcp/source/rate", 50.into())?;
        let max = site.guarded().run(|| ctguard_tests::sysctl::read(MAXIMUM))?;
        is("/conntrack/max", max.parse::<u64>()?.into())?;
        let running = status.pointer("/daemon/running") == Some(&true.into());
        let pid = status.pointer("/daemon/pid").context("a pid or null")?;
        ensure!(pid.is_u64() == running && pid.is_null() != running, "{status}");

        let people = site.succeed(&["status"])?;
        ensure!(people.contains(WAN) && people.contains("85"), "{people}");
        let widest = people.lines().map(|line| line.chars().count()).max();
        ensure!(widest.is_some_and(|widest| widest <= 80), "wider than 80 columns: {people}");
        Ok(())
    })
}

/// Fails when an operator cannot see whom a limit would refuse before it does.
#[test]
fn the_status_names_who_would_be_refused_by_what() -> Result<()> {
    if !require::root("the_status_names_who_would_be_refused_by_what") {
        return Ok(());
    }
    let site = Site::build()?;
    let cases: [(&[&str], &str, &str); 2] = [
        (&[], "default-ceiling", ": outside calm, the default ceiling of 100/s would refuse "),
        (
            &["--set", "dry-run=on", "--set", "source.udp.rate=50"],
            "ceiling",
            ": its ceiling of 50/s would refuse ",
        ),
    ];
    for (settings, limit, said) in cases {
        let daemon = site.start(&[&["run", "-i", WAN], settings].concat())?;
        let wire = site.wire()?;
        let from = IpAddr::from(Ipv4Addr::new(192, 0, 2, 7));
        let to = IpAddr::from(Ipv4Addr::new(192, 0, 2, 254));
        let mut ports = 1024..u16::MAX;
        // 400 a second.
        let above = wait_for("a source above its limit", || {
            for port in ports.by_ref().take(40) {
                wire.send(&frames::udp((from, port), (to, 53))?)?;
            }
            std::thread::sleep(Duration::from_millis(80));
            let status = site.status()?;
            Ok(status.pointer("/holders/above_limits/0").cloned())
        })?;
        ensure!(above["source"] == "192.0.2.7" && above["class"] == "udp", "{above}");
        ensure!(above["limit"] == limit, "{above}");
        let asked = above["flows_per_second"].as_f64().context("a rate")?;
        let refused = above["refused_per_second"].as_f64().context("a rate")?;
        ensure!(refused > 16.0 && refused < asked && asked < 450.0, "{above}");
        let people = site.succeed(&["status"])?;
        println!("{people}");
        let unwrapped = people.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(unwrapped.contains(said), "{people}");
        if settings.is_empty() {
            ensure!(site.number("/counters/udp/refused/source")? == 0, "{people}");
        }
        ensure!(daemon.stop()?.success());
        site.ensure_gone()?;
    }
    Ok(())
}

const MAXIMUM: &str = "net.netfilter.nf_conntrack_max";

/// Fails when a guard that sees frames which it cannot read goes on without a word.
#[test]
fn many_unreadable_frames_are_a_fault_and_an_event() -> Result<()> {
    if !require::root("many_unreadable_frames_are_a_fault_and_an_event") {
        return Ok(());
    }
    let site = Site::build()?;
    let daemon = site.guard()?;
    let wire = site.wire()?;
    // Half an IPv4 header.
    let mut frame = [[2; 6].as_slice(), &[4; 6], &[0x08, 0x00, 0x45, 0, 0, 20]].concat();
    frame.resize(30, 0);
    let told = |part: &str| -> Result<bool> { Ok(site.succeed(&["events"])?.contains(part)) };
    wait_for("the event", || {
        for _ in 0..200 {
            wire.send(&frame)?;
        }
        Ok(told("of all frames pass unjudged")?.then_some(()))
    })?;
    let status = site.status()?;
    ensure!(status.pointer("/unreadable/is_fault") == Some(&true.into()), "{status}");
    ensure!(site.succeed(&["status"])?.contains("FAULT   "), "for people");
    ensure!(daemon.stop()?.success());
    Ok(())
}
