//! How a source stands: what `ctguard why` prints.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    by_class::ByClass,
    event_text::may_hold,
    status::{PauseReport, ScopesReport},
    status_text::{above_lines, pause_text},
    wrapping,
};
use crate::{
    holders::{AboveLimit, PartReport},
    plural::entries,
};

#[derive(Debug, Serialize)]
pub(crate) struct WhyReport {
    pub(crate) schema_version: u32,
    /// An IPv4 address, or an IPv6 /64.
    pub(crate) source: String,
    pub(crate) stage: &'static str,
    /// Nothing is dropped, by a setting or a pause.
    pub(crate) dry_run: bool,
    pub(crate) pause: Option<PauseReport>,
    /// The longest prefix on the list that holds the address.
    pub(crate) allow: Option<ListedReport>,
    pub(crate) deny: Option<ListedReport>,
    /// Tiers in which it is served outside calm, the first before the others; empty: a stranger.
    pub(crate) known: Vec<&'static str>,
    pub(crate) held: HeldReport,
    /// Limits that it is above.
    pub(crate) above: Vec<AboveLimit>,
    /// Where no interface has its own.
    pub(crate) limits: ByClass<ScopesReport>,
    /// A default ceiling, which holds only outside calm, for sources that are not known.
    pub(crate) default_ceilings: ByClass<bool>,
    /// New flows a second that the source may open in its tier; null is no share.
    pub(crate) shares: ByClass<Option<f64>>,
    pub(crate) next: Vec<NextReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ListedReport {
    pub(crate) prefix: String,
    /// File, line and column; null if a command added it.
    pub(crate) origin: Option<String>,
    /// Null for an entry that does not expire.
    pub(crate) remaining_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HeldReport {
    pub(crate) entries: u64,
    pub(crate) by_state: BTreeMap<&'static str, u64>,
    /// Null while all entries fit into the target.
    pub(crate) parts: Option<PartReport>,
}

/// What would become of a packet that opens a flow.
#[derive(Debug, Serialize)]
pub(crate) struct NextReport {
    pub(crate) interface: String,
    /// `syn` or `datagram`.
    pub(crate) packet: &'static str,
    pub(crate) outcome: &'static str,
    /// The same in words.
    pub(crate) verdict: &'static str,
    pub(crate) passes: bool,
    pub(crate) tier: &'static str,
    /// New flows that would be admitted one after another now, at most 1000, and what the next meets.
    pub(crate) admitted_at_once: u16,
    pub(crate) then: Option<&'static str>,
    pub(crate) ceiling_per_second: u32,
    pub(crate) ceiling_burst: u32,
}

/// Lines of 80 columns; interfaces that treat the source alike share theirs.
pub(crate) fn write_why(report: &WhyReport, out: &mut impl Write) -> io::Result<()> {
    let mut line = |head: &str, text: &str| {
        let options = wrapping("         ");
        let text = format!("{head:<9}{text}");
        textwrap::wrap(&text, options).iter().try_for_each(|line| writeln!(out, "{line}"))
    };
    line("source", &report.source)?;
    line("stage", &stage(report))?;
    line("lists", &lists(report))?;
    line("known", &known(report))?;
    line("holds", &held(&report.held))?;
    line("limits", &limits(report))?;
    for (name, share) in report.shares.iter() {
        if let Some(share) = share {
            line("share", &format!("{name}: {share:.2} new flows/s, as all in its tier"))?;
        }
    }
    // What the last look found does not hold for a source that was allowed since.
    let above = if report.allow.is_some() { &[][..] } else { &report.above };
    if above.is_empty() && report.allow.is_none() {
        line("asks", "for no more than its limits allow, or for too short a time to tell")?;
    }
    let above = above_lines(above, report.dry_run);
    above.iter().try_for_each(|above| line("asks", above))?;
    for (first, alike, verdicts) in by_verdicts(&report.next) {
        verdicts.iter().try_for_each(|verdict| line(first, verdict))?;
        if !alike.is_empty() {
            line("", &format!("the same on {}", alike.join(", ")))?;
        }
    }
    Ok(())
}

/// What the next packets meet, with the first interface where they do and all others.
fn by_verdicts(next: &[NextReport]) -> Vec<(&str, Vec<&str>, Vec<String>)> {
    let mut groups: Vec<(&str, Vec<&str>, Vec<String>)> = Vec::new();
    for of_one in next.chunk_by(|one, other| one.interface == other.interface) {
        let name = &of_one[0].interface[..];
        let verdicts: Vec<_> = of_one.iter().map(next_text).collect();
        match groups.iter_mut().find(|(_, _, same)| *same == verdicts) {
            Some((_, alike, _)) => alike.push(name),
            None => groups.push((name, Vec::new(), verdicts)),
        }
    }
    groups
}

fn stage(report: &WhyReport) -> String {
    let nothing = match &report.pause {
        Some(pause) => format!("; {}: nothing is dropped", pause_text(pause)),
        None if report.dry_run => "; DRY RUN: nothing is dropped".to_owned(),
        None => String::new(),
    };
    format!("{}{nothing}", report.stage)
}

fn lists(report: &WhyReport) -> String {
    let of = |name: &str, listed: &Option<ListedReport>| {
        let listed = listed.as_ref()?;
        let left = listed.remaining_seconds.map(|seconds| format!(", {seconds} s left"));
        let origin = listed.origin.as_deref().unwrap_or("added by a command");
        Some(format!("{name} has {} ({origin}{})", listed.prefix, left.unwrap_or_default()))
    };
    let both = [of("deny", &report.deny), of("allow", &report.allow)];
    let both: Vec<_> = both.into_iter().flatten().collect();
    if both.is_empty() { "on none".to_owned() } else { both.join("; ") }
}

fn known(report: &WhyReport) -> String {
    if report.allow.is_some() {
        return "allowed: no ceiling, no share, and a grant of its own".to_owned();
    }
    let tiers = report.known.iter().map(|tier| match *tier {
        "above-part" => "holds more than its part of the table: served last",
        "regulars" => "a regular: it had answered flows in several hours",
        "earlier" if report.stage == "calm" => {
            "proven for some seconds: served as earlier if the guard leaves calm"
        }
        "earlier" => "was proven when the guard left calm",
        "proven" => "completed a connection in the last minutes",
        _ => "challenged like a stranger: unproven entries above its part",
    });
    let tiers: Vec<_> = tiers.into_iter().collect();
    if tiers.is_empty() { "a stranger".to_owned() } else { tiers.join("; ") }
}

fn held(held: &HeldReport) -> String {
    let states = held.by_state.iter().map(|(state, entries)| format!("{entries} {state}"));
    let states: Vec<_> = states.collect();
    let what = if states.is_empty() {
        "no entry".to_owned()
    } else {
        format!("{} ({})", entries(held.entries), states.join(", "))
    };
    let part = held.parts.map(|parts| format!("; each source may hold {}", may_hold(parts)));
    format!("{what}{}", part.unwrap_or_default())
}

fn limits(report: &WhyReport) -> String {
    let limits = report.limits.iter().zip(report.default_ceilings.iter());
    let limits = limits.map(|((name, scopes), (_, is_default))| {
        let when = if *is_default { " (default)" } else { "" };
        format!("{name} {}/s, burst {}{when}", scopes.source.rate, scopes.source.burst)
    });
    let note = if report.default_ceilings.iter().any(|(_, is_default)| *is_default) {
        "; a default holds only outside calm, for strangers"
    } else {
        ""
    };
    format!("{}{note}", limits.collect::<Vec<_>>().join("; "))
}

fn next_text(next: &NextReport) -> String {
    let packet = if next.packet == "syn" { "SYN" } else { "datagram" };
    let unless = if next.passes && next.admitted_at_once == 0 { ", but passes" } else { "" };
    let more = match (next.admitted_at_once, next.then) {
        (0, _) => String::new(),
        (many, None) => format!("; {many} and more at once"),
        (many, Some(then)) => format!("; {many} at once, the next is {then}"),
    };
    format!("its next {packet} is {}{unless} (as {}){more}", next.verdict, next.tier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::RateReport;

    fn report() -> WhyReport {
        let listed = |prefix: &str, origin: Option<&str>| {
            let (prefix, origin) = (prefix.to_owned(), origin.map(str::to_owned));
            Some(ListedReport { prefix, origin, remaining_seconds: Some(480) })
        };
        let next = |interface: &str, packet, verdict, at_once| NextReport {
            interface: interface.to_owned(),
            packet,
            outcome: "source",
            verdict,
            passes: at_once > 0,
            tier: "strangers",
            admitted_at_once: at_once,
            then: (at_once > 0).then_some("refused: the source is above its ceiling or its share"),
            ceiling_per_second: 50,
            ceiling_burst: 200,
        };
        let refused = "refused: the source is above its ceiling or its share";
        let interfaces =
            [("enp129s0f1np1", 399), ("wan0", 399), ("lan0", 7), ("lan1", 399), ("wan1", 7)];
        let next = interfaces.iter().flat_map(|&(name, at_once)| {
            [next(name, "syn", refused, 0), next(name, "datagram", "admitted", at_once)]
        });
        let above = AboveLimit {
            source: "2001:db8:1111:2222::/64".to_owned(),
            class: "tcp".to_owned(),
            flows_per_second: 15_000.0,
            refused_per_second: 14_950.0,
            limit: "default-ceiling".to_owned(),
            limit_per_second: 50.0,
            burst: 200.0,
        };
        let parts = Some(PartReport {
            connections: Some(4),
            connections_before: Some(28),
            other_entries: Some(12),
        });
        WhyReport {
            schema_version: 2,
            source: "2001:db8:1111:2222::/64".to_owned(),
            stage: "challenge",
            dry_run: false,
            pause: None,
            allow: None,
            deny: listed("2001:db8:1111::/48", Some("/etc/ctguard/conf.d/90-saved.toml:3:5")),
            known: vec!["above-part", "regulars"],
            held: HeldReport {
                entries: 12,
                by_state: BTreeMap::from([("established", 8), ("unanswered", 4)]),
                parts,
            },
            above: vec![above.clone(), above],
            limits: ByClass::new(|_| ScopesReport { source: RateReport { rate: 50, burst: 200 } }),
            default_ceilings: ByClass::new(|_| true),
            shares: ByClass::new(|_| Some(2.5)),
            next: next.collect(),
        }
    }

    #[test]
    fn the_longest_answer_fits_a_terminal() {
        let mut text = Vec::new();
        write_why(&report(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().count() <= 32, "{}: {text}", text.lines().count());
        for part in [
            "deny has 2001:db8:1111::/48",
            "holds more than its part",
            "its next datagram is admitted",
            "the same on wan0, lan1",
            "the same on wan1",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    /// Fails when an operator who allows a source reads of refusals that have ended.
    #[test]
    fn a_source_that_was_allowed_since_the_last_look_is_said_to_lose_nothing() {
        let told = |report: WhyReport| {
            let mut text = Vec::new();
            write_why(&report, &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert!(told(report()).contains("would refuse 14950/s"));
        let allow = report().deny;
        assert!(!told(WhyReport { allow, deny: None, ..report() }).contains("would refuse"));
    }

    /// Fails when a source is told about a pressure that there has not been.
    #[test]
    fn who_is_proven_in_calm_is_not_said_to_have_been_when_calm_ended() {
        let told = |stage| known(&WhyReport { stage, known: vec!["earlier"], ..report() });
        assert_eq!(
            told("calm"),
            "proven for some seconds: served as earlier if the guard leaves calm"
        );
        assert!(told("fair").starts_with("was proven when"));
    }
}
