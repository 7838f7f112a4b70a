//! Incidents as people read them.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{Incident, Peak, Seen};
use crate::{
    plural::{entries, packets},
    services::ServiceHeld,
};

/// Sources, networks and services that are named.
const NAMED: usize = 5;

pub(crate) fn write_incidents(incidents: &[Incident], out: &mut impl Write) -> io::Result<()> {
    if incidents.is_empty() {
        return writeln!(out, "no incidents: no class has left calm while a daemon ran here");
    }
    for (index, incident) in incidents.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        write_incident(incident, out)?;
    }
    Ok(())
}

fn write_incident(incident: &Incident, out: &mut impl Write) -> io::Result<()> {
    let until = match &incident.ended {
        Some(ended) => format!("until {ended}{}", incident.note()),
        None => format!("not over at {}", incident.seen),
    };
    let dry_run = if incident.was_dry_run { " (in a dry run: nothing was dropped)" } else { "" };
    writeln!(out, "incident {}: {} {until}{dry_run}", incident.number, incident.began)?;
    writeln!(
        out,
        "  peak      {} of {} entries ({:.1} %) at {}",
        incident.peak_entries,
        incident.max_entries,
        incident.peak_fill_ratio * 100.0,
        incident.peak_at
    )?;
    for (class, Peak { highest_stage, flows, .. }) in &incident.classes {
        let peak = &incident.classes[class];
        writeln!(
            out,
            "  {class:<10}{highest_stage}; up to {:.0} new flows/s, {:.0}/s admitted, {:.0}/s refused",
            peak.peak_arriving_per_second,
            peak.peak_admitted_per_second,
            peak.peak_refused_per_second
        )?;
        writeln!(
            out,
            "            {} admitted, {} challenged, refused: {}",
            flows.admitted,
            flows.challenged,
            counts(&flows.refused)
        )?;
    }
    writeln!(out, "  admitted  {}", counts(&incident.admitted_by_tier))?;
    writeln!(out, "  reclaimed {}", counts(&incident.reclaimed))?;
    if incident.denied_packets > 0 {
        writeln!(out, "  denied    {}", packets(incident.denied_packets))?;
    }
    writeln!(out, "  services  {}", services(&incident.services))?;
    writeln!(out, "  networks  {}", seen(&incident.networks))?;
    writeln!(out, "  sources   {}", seen(&incident.sources))
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn services(all: &[ServiceHeld]) -> String {
    let one = |it: &ServiceHeld| {
        format!("{} ({}, {} unanswered)", it.name(), entries(it.entries), it.unanswered_entries)
    };
    let all: Vec<_> = all.iter().take(NAMED).map(one).collect();
    if all.is_empty() { "none named".to_owned() } else { all.join(", ") }
}

fn seen(all: &[Seen]) -> String {
    let one = |Seen { name, asks, refused, holds }: &Seen| {
        let asks = if *asks > 0.0 {
            format!("asked for {asks:.0}/s, lost {refused:.0}/s")
        } else {
            format!("held {}", entries((*holds).into()))
        };
        format!("{name} ({asks})")
    };
    let all: Vec<_> = all.iter().take(NAMED).map(one).collect();
    if all.is_empty() { "none named".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_that_its_daemon_did_not_outlive_says_so() {
        let first_line = |incident: &Incident| {
            let mut text = Vec::new();
            write_incidents(std::slice::from_ref(incident), &mut text).unwrap();
            String::from_utf8(text).unwrap().lines().next().unwrap().to_owned()
        };
        let [began, seen] = ["2026-11-29T04:00:00Z", "2026-11-29T04:09:00Z"].map(str::to_owned);
        let mut incident = Incident { number: 1, began, seen: seen.clone(), ..Incident::default() };
        let line = "incident 1: 2026-11-29T04:00:00Z not over at 2026-11-29T04:09:00Z";
        assert_eq!(first_line(&incident), line);
        incident.end_with_daemon(seen);
        let line =
            "incident 1: 2026-11-29T04:00:00Z until 2026-11-29T04:09:00Z (the daemon stopped)";
        assert_eq!(first_line(&incident), line);
    }

    #[test]
    fn packets_of_denied_sources_have_a_line_of_their_own() {
        let told = |denied_packets| {
            let mut text = Vec::new();
            let incident = Incident { denied_packets, ..Incident::default() };
            write_incidents(&[incident], &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert!(told(1234).contains("\n  denied    1234 packets\n"), "{}", told(1234));
        assert!(!told(0).contains("denied"));
    }
}
