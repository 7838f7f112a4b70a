//! Plots of an incident as inline SVG. The picture stretches to the width of the page and the letters
//! do not: labels are HTML around it. Colours are those of the page's style.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use ctguard_units::real;

use super::{Incident, Series, html::Text};

/// Units of the picture's coordinates.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
const DAY: u32 = 86_400;

/// A line of a plot: its name, its class in the style, and its values.
struct Line<'a> {
    name: &'a str,
    class: &'a str,
    values: Vec<f64>,
}

/// The scale of an axis: from values to 0 (bottom) to 1 (top), and what is written beside it.
struct Scale {
    place: fn(f64, f64) -> f64,
    top: f64,
    labels: Vec<(f64, String)>,
}

/// Both plots; nothing if there are fewer than two points.
pub(super) fn write_plots(incident: &Incident, out: &mut String) {
    let series = &incident.series;
    let points = series.at_seconds.len();
    if points < 2 || !series.has_equal_columns() {
        return;
    }
    if incident.max_entries > 0 {
        write_fill(incident, out);
    }
    write_rates(incident, out);
}

fn write_fill(incident: &Incident, out: &mut String) {
    let series = &incident.series;
    let percent = |entries: &u64| real(*entries) * 100.0 / real(incident.max_entries);
    let fill = Line {
        name: "entries",
        class: "fill",
        values: series.entries.iter().map(percent).collect(),
    };
    let mut lines = vec![fill];
    if incident.target_ratio > 0.0 {
        let values = vec![incident.target_ratio * 100.0; series.at_seconds.len()];
        lines.push(Line { name: "target", class: "target", values });
    }
    let labels = [0.0, 25.0, 50.0, 75.0, 100.0].map(|it| (it, format!("{it:.0} %"))).into();
    let scale = Scale { place: |value, top| value / top, top: 100.0, labels };
    write_plot("How full the connection table was", incident, &lines, &scale, out);
}

fn write_rates(incident: &Incident, out: &mut String) {
    let series = &incident.series;
    let real = |rates: &[u32]| rates.iter().copied().map(f64::from).collect::<Vec<_>>();
    let [arriving, admitted, refused] =
        [&series.arriving_per_second, &series.admitted_per_second, &series.refused_per_second]
            .map(|rates| real(rates));
    let rest = arriving.iter().zip(&admitted).zip(&refused);
    let challenged = rest.map(|((all, admitted), refused)| (all - admitted - refused).max(0.0));
    let lines = [
        Line { name: "challenged", class: "challenged", values: challenged.collect() },
        Line { name: "arriving", class: "arriving", values: arriving },
        Line { name: "refused", class: "refused", values: refused },
        Line { name: "admitted", class: "admitted", values: admitted },
    ];
    let lines = lines.into_iter().filter(|line| line.values.iter().any(|value| *value >= 1.0));
    let lines: Vec<_> = lines.collect();
    let highest = lines.iter().flat_map(|line| &line.values).copied().fold(10.0, f64::max);
    let (mut top, mut labels) = (1.0, vec![(1.0, "1".to_owned())]);
    while top < highest {
        top *= 10.0;
        labels.push((top, short(top)));
    }
    let scale = Scale { place: |value, top| value.max(1.0).log10() / top.log10(), top, labels };
    write_plot("New flows per second (logarithmic)", incident, &lines, &scale, out);
}

fn write_plot(
    title: &str,
    incident: &Incident,
    lines: &[Line<'_>],
    scale: &Scale,
    out: &mut String,
) {
    let _ = write!(out, "<figure>\n<figcaption>{}", Text(title));
    for Line { name, class, .. } in lines {
        let _ = write!(out, " <span class=\"key\"><i class=\"{class}\"></i>{}</span>", Text(name));
    }
    out.push_str("</figcaption>\n<div class=\"plot\">");
    for (value, label) in &scale.labels {
        let up = (scale.place)(*value, scale.top) * 100.0;
        let _ = write!(out, "<span class=\"y\" style=\"bottom:{up:.1}%\">{}</span>", Text(label));
    }
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{}\">",
        Text(title)
    );
    for (value, _) in &scale.labels {
        let y = y(scale, *value);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M0 {y:.1}H{WIDTH}\"/>");
    }
    for Line { class, values, .. } in lines {
        let _ = writeln!(
            out,
            "<path class=\"{class}\" d=\"{}\"/>",
            path(&incident.series, values, scale)
        );
    }
    out.push_str("</svg></div>\n<div class=\"x\">");
    for label in times(incident) {
        let _ = write!(out, "<span>{}</span>", Text(&label));
    }
    out.push_str("</div>\n</figure>\n");
}

/// A step for each point, which stands for its whole span.
fn path(series: &Series, values: &[f64], scale: &Scale) -> String {
    let end = series.at_seconds.last().copied().unwrap_or(1).max(1);
    let mut path = String::new();
    for (number, (&at, &value)) in series.at_seconds.iter().zip(values).enumerate() {
        let (x, y) = (f64::from(at) / f64::from(end) * WIDTH, y(scale, value));
        let _ = match number {
            0 => write!(path, "M0 {y:.1}H{x:.1}"),
            _ => write!(path, "V{y:.1}H{x:.1}"),
        };
    }
    path
}

fn y(scale: &Scale, value: f64) -> f64 {
    (1.0 - (scale.place)(value, scale.top).clamp(0.0, 1.0)) * HEIGHT
}

/// What is written below a plot: the time of the day, and the date where a day is too short.
fn times(incident: &Incident) -> Vec<String> {
    let end = incident.series.at_seconds.last().copied().unwrap_or_default();
    let (parts, shown) = if end < DAY { (4, 11..19) } else { (2, 5..16) };
    let began = humantime::parse_rfc3339(&incident.began).unwrap_or(SystemTime::UNIX_EPOCH);
    (0..=parts)
        .map(|part| {
            let at = began + Duration::from_secs(u64::from(end) * part / parts);
            let text = humantime::format_rfc3339_seconds(at).to_string();
            text.get(shown.clone()).unwrap_or_default().replace('T', " ")
        })
        .collect()
}

/// 1, 10, 100, 1 k, …
fn short(power: f64) -> String {
    match power {
        1e6.. => format!("{:.0} M", power / 1e6),
        1e3.. => format!("{:.0} k", power / 1e3),
        _ => format!("{power:.0}"),
    }
}
