//! One incident as a page of HTML that needs nothing else: to be sent to a provider.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{
    Incident, Peak, Seen,
    html::{Text, grouped},
    plot::write_plots,
};

use crate::services::ServiceHeld;

const STYLE: &str = include_str!("page.css");

/// What the page says beside the incident.
#[derive(Clone, Debug)]
pub(crate) struct Colophon {
    /// The machine that was flooded.
    pub(crate) host: String,
    /// When the page was written: RFC 3339, UTC.
    pub(crate) written: String,
}

/// Sums of an incident's classes.
#[derive(Default)]
struct Sums {
    admitted: u64,
    challenged: u64,
    refused: u64,
    refused_by: BTreeMap<String, u64>,
    /// Of the class that had most; those of several classes may have been at different times.
    peak_arriving: f64,
}

/// The whole page.
pub(crate) fn page(incident: &Incident, colophon: &Colophon) -> String {
    let title = format!("Incident {} on {}", incident.number, colophon.host);
    let mut out = String::with_capacity(1 << 15);
    // A string takes all that is written to it.
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        title = Text(&title)
    );
    let sums = Sums::of(incident);
    write_summary(incident, &sums, &mut out);
    write_plots(incident, &mut out);
    write_classes(incident, &mut out);
    write_services(&incident.services, &mut out);
    write_seen(
        "Networks",
        "The /24 (IPv4) or /48 (IPv6) of the sources below.",
        &incident.networks,
        &mut out,
    );
    write_seen("Sources", ABOUT_SOURCES, &incident.sources, &mut out);
    write_counts("Admitted, by what was known of the source", &incident.admitted_by_tier, &mut out);
    write_counts("Refused, by reason", &sums.refused_by, &mut out);
    write_counts("Idle entries deleted to make room, by state", &incident.reclaimed, &mut out);
    let _ = writeln!(
        out,
        "<footer>Written by ctguard {} at {}. All times are UTC. A new flow is a packet that would \
         make the system's connection tracking table take a new entry: a TCP SYN, or the first \
         datagram between two ports. Flows that existed already are not counted, and passed.\
         </footer>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION"),
        Text(&time(&colophon.written))
    );
    out
}

const ABOUT_SOURCES: &str = "Those that lost most to a limit or held most entries; figures are the \
    highest that were seen. Whoever sends a packet can write any source into it: only a source that \
    held connections has answered. A flood from random addresses names nobody.";

fn write_summary(incident: &Incident, sums: &Sums, out: &mut String) {
    let (began, end) = (time(&incident.began), incident.ended.as_ref().unwrap_or(&incident.seen));
    let lasted = lasted(&incident.began, end).map_or_else(String::new, |it| format!(", {it}"));
    let until = match &incident.ended {
        Some(ended) => format!("until {}", time(ended)),
        None => format!("not over at {}", time(&incident.seen)),
    };
    let _ = writeln!(
        out,
        "<p class=\"soft\">{} {} UTC{}{}</p>",
        Text(&began),
        Text(&until),
        incident.note(),
        Text(&lasted)
    );
    if incident.was_dry_run {
        out.push_str(
            "<p><b>In a dry run:</b> for a part of this time at least, nothing was dropped. What \
             was refused is what would have been.</p>\n",
        );
    }
    let _ = writeln!(
        out,
        "<p>So many new flows arrived that they had to be limited, lest they fill the connection \
         tracking table. It was at most {:.1}&nbsp;% full: {} of {} entries, at {} UTC.</p>",
        incident.peak_fill_ratio * 100.0,
        grouped(incident.peak_entries),
        grouped(incident.max_entries),
        Text(&time(&incident.peak_at))
    );
    let reclaimed =
        incident.reclaimed.values().fold(0, |sum: u64, count| sum.saturating_add(*count));
    let denied = incident.denied_packets;
    let denied = (denied > 0).then(|| (grouped(denied), "packets of denied sources"));
    out.push_str("<div class=\"cards\">\n");
    for (number, what) in [
        (per_second(sums.peak_arriving), "new flows per second, at most"),
        (grouped(sums.refused), "new flows refused"),
        (grouped(sums.challenged), "asked to come again"),
        (grouped(sums.admitted), "new flows admitted"),
        (grouped(reclaimed), "idle entries deleted"),
    ]
    .into_iter()
    .chain(denied)
    {
        let _ = writeln!(out, "<div><b>{number}</b><span>{what}</span></div>");
    }
    out.push_str("</div>\n");
}

fn write_classes(incident: &Incident, out: &mut String) {
    let heads = ["class", "stage", "peak/s", "admitted/s", "refused/s"];
    let rows = incident.classes.iter().map(|(class, peak)| {
        let Peak { highest_stage, .. } = peak;
        let rates = [
            peak.peak_arriving_per_second,
            peak.peak_admitted_per_second,
            peak.peak_refused_per_second,
        ];
        let [arriving, admitted, refused] = rates.map(per_second);
        [class.clone(), highest_stage.clone(), arriving, admitted, refused]
    });
    let about = "Highest rates of new flows within one second.";
    write_table("Protocols", about, heads, rows, out);
}

fn write_services(services: &[ServiceHeld], out: &mut String) {
    let heads = ["destination", "unanswered entries", "entries"];
    let rows =
        services.iter().map(|it| [it.name(), grouped(it.unanswered_entries), grouped(it.entries)]);
    let about = "Where the entries of the connection tracking table led to, those with most \
        unanswered or half-open ones first: what floods leave behind. Highest numbers that were seen.";
    write_table("Services", about, heads, rows, out);
}

fn write_seen(title: &str, about: &str, all: &[Seen], out: &mut String) {
    let heads = ["address", "new flows/s", "refused/s", "held entries"];
    let rate = |rate: f64| if rate > 0.0 { per_second(rate) } else { "–".to_owned() };
    let rows = all.iter().map(|seen| {
        [seen.name.clone(), rate(seen.asks), rate(seen.refused), grouped(seen.holds.into())]
    });
    write_table(title, about, heads, rows, out);
}

fn write_counts(title: &str, counts: &BTreeMap<String, u64>, out: &mut String) {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let rows = counts.into_iter().map(|(name, count)| [name.replace('_', " "), grouped(*count)]);
    write_table(title, "", ["", "number"], rows, out);
}

/// Nothing without rows.
fn write_table<const N: usize>(
    title: &str,
    about: &str,
    heads: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    out: &mut String,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "<h2>{}</h2>", Text(title));
    if !about.is_empty() {
        let _ = writeln!(out, "<p class=\"soft\">{}</p>", Text(about));
    }
    out.push_str("<div class=\"wide\"><table>\n<tr>");
    for head in heads {
        let _ = write!(out, "<th>{}</th>", Text(head));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", Text(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

impl Sums {
    fn of(incident: &Incident) -> Self {
        let mut sums = Self::default();
        for Peak { flows, peak_arriving_per_second, .. } in incident.classes.values() {
            let add = |sum: &mut u64, count| *sum = sum.saturating_add(count);
            add(&mut sums.admitted, flows.admitted);
            add(&mut sums.challenged, flows.challenged);
            for (reason, count) in &flows.refused {
                add(&mut sums.refused, *count);
                add(sums.refused_by.entry(reason.clone()).or_default(), *count);
            }
            sums.peak_arriving = sums.peak_arriving.max(*peak_arriving_per_second);
        }
        sums
    }
}

fn per_second(rate: f64) -> String {
    grouped(ctguard_units::whole(rate.round()))
}

/// A time as people read it.
fn time(rfc3339: &str) -> String {
    let shown = rfc3339.replace('T', " ");
    shown.trim_end_matches('Z').to_owned()
}

fn lasted(began: &str, ended: &str) -> Option<String> {
    let [began, ended] = [began, ended].map(|it| humantime::parse_rfc3339(it).ok());
    let lasted = ended?.duration_since(began?).ok()?;
    Some(humantime::format_duration(Duration::from_secs(lasted.as_secs())).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incidents::{ClassFlows, Series};

    fn incident() -> Incident {
        let flows = ClassFlows {
            admitted: 1_200,
            challenged: 30,
            refused: BTreeMap::from([("source_ceiling".to_owned(), 98_765)]),
        };
        let tcp = Peak {
            highest_stage: "challenge".to_owned(),
            peak_arriving_per_second: 5_432.4,
            flows,
            ..Peak::default()
        };
        Incident {
            number: 7,
            began: "2026-11-29T04:00:00Z".to_owned(),
            ended: Some("2026-11-29T04:10:05Z".to_owned()),
            peak_at: "2026-11-29T04:02:00Z".to_owned(),
            peak_entries: 850,
            max_entries: 1000,
            peak_fill_ratio: 0.85,
            target_ratio: 0.85,
            denied_packets: 4_321_000,
            classes: BTreeMap::from([("tcp".to_owned(), tcp)]),
            sources: vec![Seen {
                name: "<b>192.0.2.1\"".to_owned(),
                asks: 5.0,
                refused: 4.0,
                holds: 3,
            }],
            services: vec![ServiceHeld {
                address: "203.0.113.5".to_owned(),
                protocol: "tcp".to_owned(),
                port: Some(443),
                entries: 5000,
                unanswered_entries: 4321,
            }],
            series: Series {
                at_seconds: vec![10, 605],
                entries: vec![400, 850],
                arriving_per_second: vec![0, 5000],
                admitted_per_second: vec![0, 50],
                refused_per_second: vec![0, 4000],
            },
            ..Incident::default()
        }
    }

    fn page_of(incident: &Incident) -> String {
        let colophon =
            Colophon { host: "a&b".to_owned(), written: "2026-11-29T05:00:00Z".to_owned() };
        page(incident, &colophon)
    }

    #[test]
    fn a_page_says_when_how_bad_from_whom_and_what_was_done() {
        let page = page_of(&incident());
        for told in [
            "Incident 7 on a&amp;b",
            "2026-11-29 04:00:00 until 2026-11-29 04:10:05 UTC, 10m 5s",
            "85.0&nbsp;% full: 850 of 1,000 entries, at 2026-11-29 04:02:00 UTC",
            "<b>5,432</b><span>new flows per second",
            "<td>source ceiling</td><td>98,765</td>",
            "<b>4,321,000</b><span>packets of denied sources",
            "<td>tcp</td><td>challenge</td>",
            "<td>203.0.113.5 tcp 443</td><td>4,321</td><td>5,000</td>",
            "<td>&lt;b&gt;192.0.2.1&quot;</td><td>5</td><td>4</td><td>3</td>",
        ] {
            assert!(page.contains(told), "{told:?} is not in\n{page}");
        }
    }

    #[test]
    fn a_plot_has_a_step_for_each_point_and_the_target() {
        let page = page_of(&incident());
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("<path class=\"fill\" d=\"M0 120.0H16.5V30.0H1000.0\"/>"), "{page}");
        assert!(page.contains("<path class=\"target\" d=\"M0 30.0H16.5V30.0H1000.0\"/>"), "{page}");
        assert!(page.contains("<span>04:00:00</span><span>04:02:31</span>"), "{page}");
    }

    #[test]
    fn an_incident_that_goes_on_is_said_not_to_be_over() {
        let open = Incident {
            ended: None,
            seen: "2026-11-29T04:09:00Z".to_owned(),
            networks: vec![Seen { name: "2001:db8:7::/48".to_owned(), ..Seen::default() }],
            ..incident()
        };
        let page = page_of(&open);
        assert!(page.contains("04:00:00 not over at 2026-11-29 04:09:00 UTC, 9m</p>"), "{page}");
        assert!(page.contains("<td>2001:db8:7::/48</td><td>–</td><td>–</td><td>0</td>"), "{page}");
    }

    #[test]
    fn an_incident_that_ended_with_its_daemon_says_so() {
        let page = page_of(&Incident { daemon_ended: true, ..incident() });
        assert!(page.contains("2026-11-29 04:10:05 UTC (the daemon stopped), "), "{page}");
    }

    /// A file that somebody wrote has such names, and a number of any size.
    #[test]
    fn no_text_of_an_incident_is_markup_and_no_number_is_too_large() {
        let text = || "\"'><x onload=y>".to_owned();
        let counts = || BTreeMap::from([(text(), u64::MAX), ("other".to_owned(), u64::MAX)]);
        let flows = ClassFlows { admitted: u64::MAX, challenged: u64::MAX, refused: counts() };
        let peak = Peak { highest_stage: text(), flows, ..Peak::default() };
        let seen = Seen { name: text(), asks: 1e300, refused: 1e300, holds: u32::MAX };
        let service =
            ServiceHeld { address: text(), protocol: text(), port: None, ..ServiceHeld::default() };
        let hostile = Incident {
            number: u64::MAX,
            began: text(),
            seen: text(),
            ended: None,
            peak_at: text(),
            peak_entries: u64::MAX,
            classes: BTreeMap::from([(text(), peak.clone()), ("udp".to_owned(), peak)]),
            admitted_by_tier: counts(),
            reclaimed: counts(),
            sources: vec![seen.clone(); 1000],
            networks: vec![seen],
            services: vec![service],
            ..incident()
        };
        let colophon = Colophon { host: text(), written: text() };
        let page = page(&hostile, &colophon);
        assert!(!page.contains("<x") && page.matches("&lt;x onload=y&gt;").count() > 1000);
    }

    #[test]
    fn a_page_loads_nothing_and_runs_nothing() {
        let page = page_of(&incident());
        for foreign in ["<script", "http://", "https://", "url(", "@import", "src=", "href="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    /// As former versions wrote them, or as somebody edited them.
    #[test]
    fn an_incident_without_points_or_with_odd_ones_has_no_plot() {
        let former: Incident = serde_json::from_str(r#"{"number": 3, "max_entries": 5}"#).unwrap();
        let odd = Series { at_seconds: vec![1, 2, 3], ..Series::default() };
        for incident in [former.clone(), Incident { series: odd, ..former }] {
            let page = page_of(&incident);
            assert!(!page.contains("<svg") && page.contains("Incident 3"), "{page}");
        }
    }
}
