//! The status as one screen, for a bad day.

use std::io::{self, Write};

use ctguard_layout::Outcome;

use crate::{
    holders::{AboveLimit, Holders, StateHolders},
    plural::{entries, packets, prefixes},
};

use super::{
    by_class::ByClass,
    counters::CounterReport,
    detection::DetectionReport,
    event_text::{holder_text, may_hold, reclaimed_text},
    status::{
        KnownSourcesReport, ListsReport, PauseReport, ScopesReport, StatusReport, TierReport,
    },
    wrapping,
};

/// Lines of 80 columns.
pub(crate) fn write_status(report: &StatusReport, out: &mut impl Write) -> io::Result<()> {
    let mut lines = Vec::new();
    write_lines(report, &mut lines)?;
    wrap(&String::from_utf8_lossy(&lines), out)?;
    writeln!(out)?;
    classes(&report.counters, out)?;
    writeln!(out)?;
    if report.stage != "calm" {
        tiers(report, out)?;
        writeln!(out)?;
    }
    wrap(&packets_text(report), out)
}

fn wrap(lines: &str, out: &mut impl Write) -> io::Result<()> {
    let options = wrapping("        ");
    let wrapped = lines.lines().flat_map(|line| textwrap::wrap(line, &options));
    wrapped.into_iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn write_lines(report: &StatusReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", headline(report))?;
    if let Some(fault) = report.fault() {
        writeln!(out, "FAULT   {fault}")?;
    }
    report.feeds.write_faults(out)?;
    writeln!(out, "table   {}", table(report))?;
    if let Some(holders) = &report.holders {
        write_holders(holders, report, out)?;
    }
    writeln!(out, "grant   {}", grant(report))?;
    writeln!(out, "ceiling {}", ceilings(&report.limits))?;
    writeln!(out, "known   {}", known(&report.known_sources))?;
    writeln!(out, "daemon  {}", daemon(report))?;
    writeln!(out, "detect  {}{}", report.new_flow_detection, filter(report))?;
    for interface in &report.interfaces {
        let gone = if interface.attached { "" } else { ", NOT ATTACHED" };
        let own = limits_note(&interface.limits, &report.limits);
        let zone = zone(interface.zone, &report.new_flow_detection);
        writeln!(out, "guards  {} ({}{gone}){zone}{own}", interface.name, interface.mode)?;
    }
    for waited in &report.waiting {
        writeln!(out, "waiting {}", waited.text())?;
    }
    let ListsReport { allow, deny, refused_packets } = report.lists;
    writeln!(
        out,
        "lists   {} allowed, {deny} denied, {} refused",
        prefixes(allow as u64),
        packets(refused_packets)
    )?;
    for feed in &report.feeds.feeds {
        let (name, prefixes) = (&feed.name, prefixes(feed.prefixes));
        let verb = if feed.list == "allow" { "allowed" } else { "denied" };
        writeln!(out, "feed    {name}: {prefixes} {verb}{}", feed.refused())?;
    }
    Ok(())
}

fn packets_text(report: &StatusReport) -> String {
    let of = |outcome| report.counters.packets.by_outcome.of(outcome);
    let malformed: u64 = Outcome::MALFORMED.into_iter().map(of).sum();
    format!(
        "packets {} of known flows, {} of denied sources, {} repeated SYNs, {} that make no entry, \
         {} later fragments, {} exempt, {} for other stations, {malformed} malformed, {} tiny fragments \
         dropped",
        of(Outcome::Known),
        report.counters.denied_packets(),
        of(Outcome::Repeated),
        of(Outcome::MakesNoEntry),
        of(Outcome::LaterFragment),
        of(Outcome::Exempt),
        of(Outcome::NotOurs),
        of(Outcome::TinyFragment),
    )
}

fn headline(report: &StatusReport) -> String {
    let dry_run = match &report.pause {
        Some(pause) => format!(", {}: nothing is dropped", pause_text(pause)),
        None if report.dry_run => ", DRY RUN: nothing is dropped".to_owned(),
        None => String::new(),
    };
    let gone = if report.daemon.pid.is_none() { ", NO DAEMON RUNS" } else { "" };
    let ByClass([tcp, udp, other]) = report.stages;
    let stages = format!(" (tcp {tcp}, udp {udp}, other {other})");
    let stages = if report.stage == "calm" { "" } else { &stages };
    format!("stage   {}{stages}{gone}{dry_run}", report.stage)
}

/// `paused until 14:02:10 UTC (8 min left)`.
pub(crate) fn pause_text(pause: &PauseReport) -> String {
    let clock = pause.until.get(11..19).unwrap_or(&pause.until);
    let minutes = (pause.left_seconds + 30) / 60;
    let left = match pause.left_seconds {
        seconds @ 0..100 => format!("{seconds} s"),
        _ if minutes < 100 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    };
    format!("paused until {clock} UTC ({left} left)")
}

fn table(report: &StatusReport) -> String {
    let table = &report.conntrack;
    if !table.loaded {
        return "conntrack is not loaded: nothing is tracked, only ceilings apply".to_owned();
    }
    let target = table.target_ratio * 100.0;
    match table.fill_ratio {
        Some(fill) => format!(
            "{} of {} entries ({:.1} %), target {target:.1} %",
            table.count,
            table.max,
            fill * 100.0
        ),
        None => format!("{}, no maximum", entries(table.count)),
    }
}

fn write_holders(holders: &Holders, report: &StatusReport, out: &mut impl Write) -> io::Result<()> {
    let state = |state: &StateHolders| {
        let StateHolders { state, entries, idle_entries } = state;
        let idle = if *idle_entries > 0 {
            format!(" ({idle_entries} idle for a minute)")
        } else {
            String::new()
        };
        format!("{entries} {state}{idle}")
    };
    writeln!(out, "states  {}", list(holders.states.iter().map(state)))?;
    writeln!(out, "held by {}", list(holders.most().iter().map(holder_text)))?;
    let part = match holders.parts {
        Some(parts) => format!("each source may hold {}", may_hold(parts)),
        None => "all entries fit below the target, so each source may hold any number".to_owned(),
    };
    writeln!(out, "part    {part}")?;
    let reclaimed = if holders.reclaimed.is_empty() {
        "none were reclaimed".to_owned()
    } else {
        format!("reclaimed {}", reclaimed_text(&holders.reclaimed))
    };
    writeln!(out, "relief  {} can be reclaimed; {reclaimed}", entries(holders.reclaimable))?;
    match until_full(holders, report) {
        Some(0.0) => writeln!(
            out,
            "growth  {:.0} entries/s; the table is above its target",
            holders.growth_per_second
        )?,
        Some(seconds) => writeln!(
            out,
            "growth  {:.0} entries/s; the table reaches its target in {seconds:.0} s",
            holders.growth_per_second
        )?,
        None => writeln!(out, "growth  the table does not grow")?,
    }
    if holders.above_limits.is_empty() {
        writeln!(out, "above   no source has been above a limit for long enough to tell")?;
    }
    let above = above_lines(&holders.above_limits, report.dry_run).into_iter();
    above.enumerate().try_for_each(|(index, text)| {
        writeln!(out, "{:<8}{text}", if index == 0 { "above" } else { "" })
    })
}

/// A line for each source, whatever the number of its classes.
pub(crate) fn above_lines(above: &[AboveLimit], dry_run: bool) -> Vec<String> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for above in above {
        match lines.iter_mut().find(|(source, _)| *source == above.source) {
            Some((_, line)) => {
                let more =
                    format!("; for {:.0}/s {}", above.flows_per_second, of_class(above, dry_run));
                line.push_str(&more);
            }
            None => lines.push((&above.source, above_text(above, dry_run))),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

pub(crate) fn above_text(above: &AboveLimit, dry_run: bool) -> String {
    let AboveLimit { source, flows_per_second, .. } = above;
    let of_class = of_class(above, dry_run);
    format!("{source} asks for {flows_per_second:.0} new flows/s {of_class}")
}

fn of_class(above: &AboveLimit, dry_run: bool) -> String {
    let AboveLimit { class, refused_per_second, limit, .. } = above;
    let (when, limit) = match limit.as_str() {
        "default-ceiling" => ("outside calm, ", "the default ceiling"),
        "share" => ("", "its share"),
        _ => ("", "its ceiling"),
    };
    let refuses = if dry_run || !when.is_empty() { "would refuse" } else { "refuses" };
    let rate = rate_text(above.limit_per_second);
    format!("({class}): {when}{limit} of {rate} {refuses} {refused_per_second:.0}/s")
}

fn rate_text(per_second: f64) -> String {
    let digits = if per_second < 10.0 { 2 } else { 0 };
    format!("{per_second:.digits$}/s")
}

fn list(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(", ") }
}

/// Seconds until the table reaches its target, if it goes on to grow as between the last two looks.
#[expect(clippy::cast_precision_loss, reason = "counts of entries stay below 2^53")]
fn until_full(holders: &Holders, report: &StatusReport) -> Option<f64> {
    let table = &report.conntrack;
    let room = table.max as f64 * table.target_ratio - table.count as f64;
    (holders.growth_per_second >= 1.0 && table.max > 0)
        .then(|| room.max(0.0) / holders.growth_per_second)
}

fn filter(report: &StatusReport) -> String {
    if report.new_flow_detection.asks_conntrack() && !report.known_flows.complete {
        return "; filter not filled from the table yet, so every new flow costs a lookup"
            .to_owned();
    }
    let load = report.known_flows.load_ratio * 100.0;
    match report.known_flows.dump_age_seconds {
        Some(age) => format!("; filter {load:.1} % full, filled from the table {age:.0} s ago"),
        None => format!("; filter {load:.1} % full"),
    }
}

fn known(known: &KnownSourcesReport) -> String {
    let KnownSourcesReport { regulars, proven, challenged, capacity, .. } = known;
    let above = match challenged {
        0 => String::new(),
        _ => format!(", {challenged} unproven above their part"),
    };
    format!("{regulars} regular and {proven} proven sources{above}, room for {capacity}")
}

fn grant(report: &StatusReport) -> String {
    if report.grant.fallback_active {
        return "fallback rate in force, because no daemon writes grants".to_owned();
    }
    format!(
        "{} new flows until the next tick, and {} from allowed sources",
        report.grant.remaining, report.grant.allowed_remaining
    )
}

fn daemon(report: &StatusReport) -> String {
    let daemon = &report.daemon;
    let age = daemon.heartbeat_age_seconds.map(|age| format!(", heartbeat {age:.1} s ago"));
    let age = age.unwrap_or_default();
    match daemon.pid {
        Some(pid) => format!("running (pid {pid}{age})"),
        None => format!("NOT RUNNING{age}"),
    }
}

fn zone(zone: u32, detection: &DetectionReport) -> String {
    match zone {
        0 => String::new(),
        zone if detection.asks_conntrack() => format!(", zone {zone}"),
        zone => format!(", zone {zone} (ignored by the flow cache)"),
    }
}

/// Of each source where no interface has its own.
fn ceilings(policy: &ByClass<ScopesReport>) -> String {
    let limits: Vec<_> = policy.iter().map(|(name, own)| limit(name, own)).collect();
    format!("each source: {}", limits.join("; "))
}

fn limits_note(own: &ByClass<ScopesReport>, policy: &ByClass<ScopesReport>) -> String {
    let both = own.iter().zip(policy.iter());
    let notes = both
        .filter(|((_, own), (_, policy))| own.source != policy.source)
        .map(|((name, own), _)| format!(", {}", limit(name, own)));
    notes.collect()
}

fn limit(class: &str, ScopesReport { source }: &ScopesReport) -> String {
    format!("{class} {}/s, burst {}", source.rate, source.burst)
}

/// The tiers, which exist only outside calm.
fn tiers(report: &StatusReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "tier      {:>12} {:>12}   new flows per source: tcp / udp / other",
        "admitted", "grant left"
    )?;
    for TierReport { name, admitted, remaining, share: shares } in &report.tiers {
        let share = |share: Option<f64>| share.map_or("–".to_owned(), |it| format!("{it:.2}/s"));
        let [tcp, udp, other] = shares.0.map(share);
        let (admitted, left) = (count(*admitted), count(*remaining));
        writeln!(out, "{name:<10}{admitted:>12} {left:>12}   {tcp} / {udp} / {other}")?;
    }
    Ok(())
}

/// New flows.
fn classes(counters: &CounterReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", "new flows", "admitted", "challenged", "over limit", "over grant", "fallback"
    )?;
    for (name, counters) in counters.classes.iter() {
        let of = |outcome| counters.refused.of(outcome);
        let challenged = of(Outcome::RefusedChallenge);
        let [grant, fallback] = [Outcome::RefusedGrant, Outcome::RefusedFallback].map(of);
        let limited = counters.refused_flows() - challenged - grant - fallback;
        let challenged = counters.challenged + challenged;
        write!(out, "{name:8}")?;
        for flows in [counters.seen, counters.admitted, challenged, limited, grant, fallback] {
            write!(out, "{:>12}", count(flows))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A number that fits a column of 11.
fn count(number: u64) -> String {
    if number < 100_000_000_000 { number.to_string() } else { format!("{}M", number / 1_000_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(limit: &str, limit_per_second: f64) -> AboveLimit {
        AboveLimit {
            source: "198.51.100.7".to_owned(),
            class: "tcp".to_owned(),
            flows_per_second: 150.2,
            refused_per_second: 150.2 - limit_per_second,
            limit: limit.to_owned(),
            limit_per_second,
            burst: 200.0,
        }
    }

    #[test]
    fn a_long_line_goes_on_below_its_text() {
        let mut text = Vec::new();
        let held = ["203.0.113.7 (8 finished, 1 stream)"; 3].join(", ");
        wrap(&format!("held by {held}\nguards  wan0 (native)\n"), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "held by 203.0.113.7 (8 finished, 1 stream), 203.0.113.7 (8 finished, 1 stream),\n        \
             203.0.113.7 (8 finished, 1 stream)\nguards  wan0 (native)\n"
        );
    }

    /// Fails when a terminal of 80 columns wraps the table of classes.
    #[test]
    fn the_table_of_classes_fits_80_columns_however_much_was_counted() {
        let table = |number| {
            let mut text = Vec::new();
            classes(&CounterReport::by(|_| number), &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let lines = |text: &str| text.lines().map(str::len).collect::<Vec<_>>();
        assert_eq!(lines(&table(7)), [80; 4]);
        assert_eq!(lines(&table(10_u64.pow(15))), [80; 4]);
        let tcp = table(10_u64.pow(10)).lines().nth(1).map(str::to_owned).unwrap();
        assert!(tcp.ends_with(" 10000000000 10000000000"), "{tcp}");
    }

    #[test]
    fn a_default_ceiling_is_said_to_refuse_nothing_in_calm() {
        assert_eq!(
            above_text(&above("default-ceiling", 50.0), false),
            "198.51.100.7 asks for 150 new flows/s (tcp): outside calm, the default ceiling of 50/s \
             would refuse 100/s"
        );
    }

    #[test]
    fn a_source_that_is_above_limits_in_two_classes_has_one_line() {
        let udp = AboveLimit { class: "udp".to_owned(), ..above("ceiling", 100.0) };
        let other = AboveLimit { source: "192.0.2.9".to_owned(), ..above("ceiling", 100.0) };
        let lines = above_lines(&[above("default-ceiling", 50.0), other, udp], false);
        let [first, second] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(
            first,
            "198.51.100.7 asks for 150 new flows/s (tcp): outside calm, the default ceiling of 50/s \
             would refuse 100/s; for 150/s (udp): its ceiling of 100/s refuses 50/s"
        );
        assert!(second.starts_with("192.0.2.9 asks"), "{second}");
    }

    #[test]
    fn a_pause_says_until_when_and_how_long_that_is() {
        let text = |left_seconds| {
            let until = "2026-11-29T14:02:10Z".to_owned();
            pause_text(&PauseReport { until, left_seconds, dry_run_after: false })
        };
        assert_eq!(text(480), "paused until 14:02:10 UTC (8 min left)");
        assert_eq!(text(99), "paused until 14:02:10 UTC (99 s left)");
        assert_eq!(text(5940), "paused until 14:02:10 UTC (99 min left)");
        assert_eq!(text(86_401), "paused until 14:02:10 UTC (24 h 0 min left)");
    }

    #[test]
    fn what_is_in_force_refuses_and_in_a_dry_run_would() {
        let own = above("ceiling", 100.0);
        assert!(above_text(&own, false).ends_with("its ceiling of 100/s refuses 50/s"));
        assert!(above_text(&own, true).ends_with("its ceiling of 100/s would refuse 50/s"));
        let share = above("share", 2.5);
        assert!(above_text(&share, false).ends_with("its share of 2.50/s refuses 148/s"));
    }
}
