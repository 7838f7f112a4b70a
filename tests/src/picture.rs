//! The picture of a lab: fill of the table and success of legitimate clients, on one time axis.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::{
    backend::SVGBackend,
    chart::{ChartBuilder, ChartContext},
    coord::{Shift, cartesian::Cartesian2d, types::RangedCoordf64},
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{Circle, Rectangle, Text},
    series::{DashedLineSeries, LineSeries},
    style::{
        Color as _, FontStyle, IntoFont as _, RGBColor, ShapeStyle, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};
use resvg::{tiny_skia, usvg};

use crate::report::{Report, Run, ratio};

/// Pixels, twice those of a README's column: plotters draws on whole ones.
const SIZE: (u32, u32) = (2000, 1280);
/// Where text and the legend begin, in line with the axes.
const LEFT: i32 = 128;
/// The size of the title's letters, and their width on average in hundredths of it.
const TITLE: u32 = 40;
const TITLE_WIDTH: u32 = 50;
/// The font the PNG is drawn with, where it is installed; the SVG leaves it to its reader.
const FONT: &str = "DejaVu Sans";

// Okabe and Ito's colours, told apart by colour-blind readers as well.
const UNGUARDED: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const GUARDED: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const IDEAL: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const BASELINE: RGBColor = RGBColor(0x80, 0x80, 0x80);
const INK: RGBColor = RGBColor(0x26, 0x26, 0x26);
const FAINT: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const FLOOD: RGBColor = RGBColor(0xe6, 0x9f, 0x00);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Panel<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws `NAME.svg` and `NAME.png` into the directory.
pub fn draw(report: &Report, directory: &Path, name: &str) -> Result<()> {
    let svg = svg(report)?;
    let path = directory.join(format!("{name}.svg"));
    fs::write(&path, &svg).with_context(|| format!("cannot write {}", path.display()))?;
    png(&svg, &directory.join(format!("{name}.png")))
}

fn svg(report: &Report) -> Result<String> {
    let mut svg = String::new();
    {
        let whole = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        whole.fill(&WHITE).map_err(failed)?;
        let (head, panels) = whole.split_vertically(152);
        draw_head(&head, report)?;
        let (fill, success) = panels.split_vertically(572);
        draw_fill(&fill, report)?;
        draw_success(&success, report)?;
        whole.present().map_err(failed)?;
    }
    Ok(svg)
}

fn png(svg: &str, path: &Path) -> Result<()> {
    let mut options = usvg::Options { font_family: FONT.to_owned(), ..usvg::Options::default() };
    let fonts = options.fontdb_mut();
    fonts.load_system_fonts();
    fonts.set_sans_serif_family(FONT);
    if fonts.is_empty() {
        eprintln!("ctguard-lab: no font for the PNG's text; apt-get install fonts-dejavu-core");
    }
    let tree = usvg::Tree::from_str(svg, &options).context("cannot read the picture back")?;
    let mut pixels = tiny_skia::Pixmap::new(SIZE.0, SIZE.1).context("the picture has no size")?;
    resvg::render(&tree, tiny_skia::Transform::identity(), &mut pixels.as_mut());
    pixels.save_png(path).with_context(|| format!("cannot write {}", path.display()))
}

fn draw_head(area: &Area<'_>, report: &Report) -> Result<()> {
    let options = &report.options;
    let rate = match options.flood_packets_per_second {
        Some(rate) => format!("{} packets a second", grouped(rate)),
        None => "as many packets a second as a CPU makes".to_owned(),
    };
    let port = if options.port_dropped { ", at a port its rules drop" } else { "" };
    let title = format!("A NAT router under a flood: {}, {rate}{port}", flood_name(&options.flood));
    // A long title gets smaller letters.
    let letters = u32::try_from(title.chars().count()).unwrap_or(u32::MAX).max(1);
    let size = TITLE.min((SIZE.0 - 2 * LEFT.unsigned_abs()) * 100 / (letters * TITLE_WIDTH));
    let style = ("sans-serif", size, FontStyle::Bold).into_font().color(&INK);
    area.draw(&Text::new(title, (LEFT, 28), style)).map_err(failed)?;

    let lines = curves(report).into_iter();
    let lines = lines.map(|(name, colour, _)| (name, (106, 112), colour.filled()));
    let mut at = LEFT;
    for (name, (top, bottom), style) in lines.chain([("flood", (92, 126), shade())]) {
        let sample = Rectangle::new([(at, top), (at + 52, bottom)], style);
        area.draw(&sample).map_err(failed)?;
        area.draw(&Text::new(name, (at + 68, 98), text(28, INK))).map_err(failed)?;
        // Letters of this size are some 15 wide on average.
        at += 128 + 15 * i32::try_from(name.len()).unwrap_or(0);
    }
    Ok(())
}

fn draw_fill(area: &Area<'_>, report: &Report) -> Result<()> {
    let target = report.runs().map(|(_, run)| run.target_ratio).next().unwrap_or(1.0) * 100.0;
    let title = format!("Connection table, % of {} entries", grouped(report.options.table_max));
    let mut panel = panel(area, report, &title, None)?;
    let end = end(report);
    let line = DashedLineSeries::new([(0.0, target), (end, target)], 12, 8, INK.stroke_width(2));
    panel.draw_series(line).map_err(failed)?;
    let style = text(26, INK).pos(Pos::new(HPos::Left, VPos::Top));
    let label = Text::new(format!("target {target:.0} %"), (end * 0.008, target - 2.0), style);
    panel.draw_series([label]).map_err(failed)?;
    for (_, colour, run) in curves(report) {
        let points = run.fill.series.iter();
        let points = points.map(|p| (p.seconds, 100.0 * ratio(p.count, run.table_max)));
        let line = LineSeries::new(points, colour.stroke_width(6));
        panel.draw_series(line).map_err(failed)?;
    }
    Ok(())
}

fn draw_success(area: &Area<'_>, report: &Report) -> Result<()> {
    let title = "Legitimate new flows that succeed without waiting for a retransmission, %";
    let mut panel = panel(area, report, title, Some("seconds"))?;
    for (_, colour, run) in curves(report) {
        let points = run.legitimate.over_time.iter();
        // A point stands for its second, so it lies in its middle.
        let points: Vec<_> = points
            .map(|p| (f64::from(p.seconds) + 0.5, 100.0 * p.success.at_once_ratio()))
            .collect();
        let dots = points.iter().map(|point| Circle::new(*point, 8, colour.filled()));
        panel.draw_series(dots).map_err(failed)?;
        let line = LineSeries::new(points, colour.stroke_width(6));
        panel.draw_series(line).map_err(failed)?;
    }
    Ok(())
}

/// One panel with its title, axes, grid, and the time of the flood.
fn panel<'a, 'b>(
    area: &'a Area<'b>,
    report: &Report,
    title: &str,
    time: Option<&str>,
) -> Result<Panel<'a, 'b>> {
    area.draw(&Text::new(title.to_owned(), (LEFT, 6), text(28, INK))).map_err(failed)?;
    let mut panel = ChartBuilder::on(area)
        .margin_top(52)
        .margin_right(48)
        .margin_left(20)
        .x_label_area_size(if time.is_some() { 92 } else { 52 })
        .y_label_area_size(108)
        .build_cartesian_2d(0.0..end(report), 0.0..105.0)
        .map_err(failed)?;
    let flooded = report.runs().find_map(|(_, run)| run.flood_seconds);
    if let Some((from, to)) = flooded {
        let shade = Rectangle::new([(from, 0.0), (to, 105.0)], shade());
        panel.draw_series([shade]).map_err(failed)?;
    }
    panel
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE.mix(0.0))
        .bold_line_style(FAINT.stroke_width(2))
        .axis_style(INK.stroke_width(2))
        .label_style(text(26, INK))
        .axis_desc_style(text(26, INK))
        .x_desc(time.unwrap_or_default())
        .x_labels(13)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()
        .map_err(failed)?;
    Ok(panel)
}

/// The runs that a picture compares; the ideal one only where nothing else stands against the
/// unguarded one.
fn curves(report: &Report) -> Vec<(&'static str, RGBColor, &Run)> {
    let ideal = report.ideal.as_ref().filter(|_| report.guarded.is_none());
    let flooded = report.unguarded.is_some() || report.guarded.is_some() || ideal.is_some();
    let baseline = report.baseline.as_ref().filter(|_| !flooded);
    let all = [
        ("without a flood", BASELINE, baseline),
        ("without a guard", UNGUARDED, report.unguarded.as_ref()),
        ("with a filter that knows the flood", IDEAL, ideal),
        ("with ctguard", GUARDED, report.guarded.as_ref()),
    ];
    all.into_iter().filter_map(|(name, colour, run)| Some((name, colour, run?))).collect()
}

/// The last second shown: legitimate flows start until then.
fn end(report: &Report) -> f64 {
    let last = |run: &Run| run.fill.series.last().map(|point| point.seconds);
    let seconds = report.runs().filter_map(|(_, run)| last(run)).fold(1.0, f64::max);
    seconds.round()
}

fn flood_name(flood: &str) -> &str {
    match flood {
        "syn-one-source" => "SYNs from one source",
        "syn-spoofed" => "SYNs from 268 million sources",
        "udp-one-source" => "UDP from one source",
        "udp-spoofed" => "UDP from 268 million sources",
        "mixed" => "SYNs and UDP, from one source and spoofed",
        "icmp" => "pings from 268 million sources",
        "tiny-fragments" => "tiny fragments from 268 million sources",
        "long-extensions" => "long header chains from 268 million sources",
        "ack" => "ACKs from 268 million sources",
        "ack-one-source" => "ACKs from one source",
        "sctp" => "SCTP from 268 million sources",
        "syn-live" => "SYNs, each twice, from 1,000 hosts that live",
        "sources-completing" => "connections of 1,000 sources",
        "bots" => "connections of 10,000 sources",
        "bots-prefix" | "bots-prefix-v6" => "connections of one network's bots",
        "lan-host" => "SYNs of an inside host",
        "syn-allowed" => "SYNs from an allowed source",
        "mixed-random" => "three floods in fits",
        "syn-answered" => "SYNs from 268 million sources, each answered",
        "udp-answered" => "UDP from 268 million sources, each answered",
        "syn-pulses" => "SYNs from 268 million sources, in pulses",
        "holders" => "500 clients that hold 28 connections each",
        "completers" => "connections of 500 sources",
        "many-holders" => "connections of 5,000 sources, held for 30 s",
        "lan-host-udp" => "UDP of an inside host",
        "udp-answers" => "imitated answers from 268 million sources",
        other => other,
    }
}

/// The ground of the time that the flood lasts.
fn shade() -> ShapeStyle {
    FLOOD.mix(0.16).filled()
}

fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}

/// Digits in groups of three.
fn grouped(number: impl Into<u64>) -> String {
    crate::summary::grouped(number.into())
}

/// plotters' errors borrow the drawing, so they leave as text.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the picture: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_runs_still_gives_a_picture() {
        let report: Report = serde_json::from_str(
            r#"{"schema_version":1,"options":{"flood":"mixed","seconds":1,"flood_packets_per_second":null,
            "table_max":16384,"port_dropped":false,"family":"ipv4","legitimate_per_second":1.0},
            "machine":{"kernel":"","cpus":1},"baseline":null,"unguarded":null,"guarded":null,"ideal":null}"#,
        )
        .expect("the report is well formed");
        let svg = svg(&report).expect("a picture can be drawn");
        assert!(svg.contains("A NAT router under a flood"), "{svg}");
    }
}
