//! `status`, for people and for programs.

use anyhow::{Context as _, Result, ensure};
use ctguard_tests::{product::WAN, require};
use serde_json::Value;

use crate::with_and_without_daemon;

/// What a kind of field looks like.
type Kind = fn(&Value) -> bool;

const NUMBER: Kind = Value::is_u64;
const RATIO: Kind = |value| value.as_f64().is_some_and(|ratio| (0.0..=1.0).contains(&ratio));
const TEXT: Kind = Value::is_string;
const SWITCH: Kind = Value::is_boolean;

/// Fields that programs rely on, by their JSON pointers.
const FIELDS: [(&str, Kind); 24] = [
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
        Ok(())
    })
}

const MAXIMUM: &str = "net.netfilter.nf_conntrack_max";
