//! The picture of a run: fill, shares, refusals and success on one time axis.

use std::{fmt::Display, fs, io, path::Path};

use plotters::{
    backend::SVGBackend,
    chart::{ChartBuilder, ChartContext},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        combinators::IntoLogRange as _,
        ranged1d::{Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{Circle, Rectangle, Text},
    series::{DashedLineSeries, LineSeries},
    style::{
        Color as _, FontStyle, IntoFont as _, RGBColor, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};
use thiserror::Error;

use super::{
    quantity::{float, ratio},
    report::{GroupPoint, Point, SimulationReport},
};

/// Pixels of the head, and of each panel.
const WIDTH: u32 = 1600;
const HEAD: u32 = 120;
const PANEL: u32 = 330;
/// Where text begins, in line with the axes.
const LEFT: i32 = 120;
/// Of text, on average.
const LETTER_WIDTH: i32 = 11;
/// Points of the series that make one of the picture, so that small groups are more than noise.
const MERGED: usize = 4;

// Okabe and Ito's colours, told apart by colour-blind readers as well.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x80, 0x80, 0x80),
];
const INK: RGBColor = RGBColor(0x26, 0x26, 0x26);
const FAINT: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Why there is no picture.
#[derive(Debug, Error)]
pub enum PlotError {
    #[error("cannot draw the picture: {0}")]
    Draw(String),
    #[error("cannot write {path}")]
    Write { path: String, source: io::Error },
}

/// Draws the report into a file.
pub fn draw(report: &SimulationReport, path: &Path) -> Result<(), PlotError> {
    let svg = svg(report)?;
    let path_shown = path.display().to_string();
    fs::write(path, svg).map_err(|source| PlotError::Write { path: path_shown, source })
}

fn svg(report: &SimulationReport) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let size = (WIDTH, HEAD + 4 * PANEL);
        let whole = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        whole.fill(&WHITE).map_err(failed)?;
        let (head, panels) = whole.split_vertically(HEAD);
        let (fill, panels) = panels.split_vertically(PANEL);
        let (shares, panels) = panels.split_vertically(PANEL);
        let (refused, success) = panels.split_vertically(PANEL);
        draw_head(&head, report)?;
        draw_fill(&fill, report)?;
        let title = "Share of the new flows that get their entry, %";
        draw_ratios(&shares, report, title, |group, all| (succeeded(group), all))?;
        draw_refused(&refused, report)?;
        let title = "New flows that get their entry at the first try, %";
        draw_ratios(&success, report, title, |group, _| (group.at_once, group.flows))?;
        whole.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw_head(area: &Area<'_>, report: &SimulationReport) -> Result<(), PlotError> {
    let max = report.table.max_entries;
    let title = format!("{}: table of {max} entries, seed {}", report.scenario, report.seed);
    let style = ("sans-serif", 30, FontStyle::Bold).into_font().color(&INK);
    area.draw(&Text::new(title, (LEFT, 18), style)).map_err(failed)?;
    let mut at = LEFT;
    for (group, colour) in report.groups.iter().zip(colours()) {
        let sample = Rectangle::new([(at, 80), (at + 36, 86)], colour.filled());
        area.draw(&sample).map_err(failed)?;
        area.draw(&Text::new(group.name.clone(), (at + 46, 72), text(20))).map_err(failed)?;
        at += 76 + LETTER_WIDTH * i32::try_from(group.name.chars().count()).unwrap_or(0);
    }
    Ok(())
}

fn draw_fill(area: &Area<'_>, report: &SimulationReport) -> Result<(), PlotError> {
    let mut panel = linear_panel(area, report, "Connection table, % of its entries")?;
    let target = report.table.target_ratio * 100.0;
    let line = [(0.0, target), (end(report), target)];
    let line = DashedLineSeries::new(line, 12, 8, INK.stroke_width(1));
    panel.draw_series(line).map_err(failed)?;
    let style = text(18).pos(Pos::new(HPos::Left, VPos::Bottom));
    let label = Text::new("target", (end(report) * 0.005, target + 1.0), style);
    panel.draw_series([label]).map_err(failed)?;
    let max = float(report.table.max_entries) / 100.0;
    let unit = TimeUnit::of(report).seconds;
    let of = |entries: fn(&Point) -> u64| {
        let points = report.series.iter();
        points.map(move |point| (point.seconds / unit, float(entries(point)) / max))
    };
    // Between two looks it may have been higher.
    let peaks = LineSeries::new(of(|point| point.peak_entries), FAINT.stroke_width(5));
    panel.draw_series(peaks).map_err(failed)?;
    let looks = LineSeries::new(of(|point| point.entries), INK.stroke_width(3));
    panel.draw_series(looks).map_err(failed)?;
    Ok(())
}

/// A line for each group of a part and the whole that it is of, given what all groups got.
fn draw_ratios(
    area: &Area<'_>,
    report: &SimulationReport,
    title: &str,
    part: impl Fn(&GroupPoint, u64) -> (u64, u64),
) -> Result<(), PlotError> {
    let mut panel = linear_panel(area, report, title)?;
    for ((index, _), colour) in report.groups.iter().enumerate().zip(colours()) {
        let points: Vec<_> = merged(report)
            .map(|(seconds, _, groups)| {
                let all = groups.iter().map(succeeded).sum();
                let (part, whole) = part(groups.get(index)?, all);
                ratio(part, whole).map(|ratio| (seconds, ratio * 100.0))
            })
            .collect();
        // Where there were no flows there is no line.
        for line in points.split(Option::is_none) {
            let line: Vec<_> = line.iter().copied().flatten().collect();
            if let [point] = line.as_slice() {
                panel.draw_series([Circle::new(*point, 3, colour.filled())]).map_err(failed)?;
            }
            panel.draw_series(LineSeries::new(line, colour.stroke_width(3))).map_err(failed)?;
        }
    }
    Ok(())
}

fn draw_refused(area: &Area<'_>, report: &SimulationReport) -> Result<(), PlotError> {
    let rates = |index: usize| {
        merged(report).filter_map(move |(seconds, span, groups): (f64, f64, Vec<GroupPoint>)| {
            Some((seconds, float(groups.get(index)?.refused_packets) / span))
        })
    };
    let all = (0..report.groups.len()).flat_map(rates);
    let highest = all.map(|(_, rate)| rate).fold(100.0, f64::max);
    let mut chart = chart(area, "Packets refused a second");
    let mut panel = chart
        .build_cartesian_2d(0.0..end(report), (0.1..highest * 1.5).log_scale())
        .map_err(failed)?;
    mesh(&mut panel, report, &|rate| format!("{rate}"))?;
    for ((index, _), colour) in report.groups.iter().enumerate().zip(colours()) {
        // On this scale there is no nothing: it lies on the axis.
        let points = rates(index).map(|(seconds, rate)| (seconds, rate.max(0.1)));
        panel.draw_series(LineSeries::new(points, colour.stroke_width(3))).map_err(failed)?;
    }
    Ok(())
}

fn linear_panel<'a, 'b>(
    area: &'a Area<'b>,
    report: &SimulationReport,
    title: &str,
) -> Result<ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>, PlotError>
{
    let mut chart = chart(area, title);
    let mut panel = chart.build_cartesian_2d(0.0..end(report), 0.0..105.0).map_err(failed)?;
    mesh(&mut panel, report, &|percent| format!("{percent:.0}"))?;
    Ok(panel)
}

fn chart<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    // A title that cannot be drawn is missed, not worth an error of its own.
    let _ = area.draw(&Text::new(title.to_owned(), (LEFT, 0), text(22)));
    let mut chart = ChartBuilder::on(area);
    chart
        .margin_top(36)
        .margin_right(40)
        .x_label_area_size(50)
        .y_label_area_size(LEFT.unsigned_abs());
    chart
}

fn mesh<Y: Ranged<ValueType = f64> + ValueFormatter<f64>>(
    panel: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<RangedCoordf64, Y>>,
    report: &SimulationReport,
    label: &dyn Fn(&f64) -> String,
) -> Result<(), PlotError> {
    panel
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE.mix(0.0))
        .bold_line_style(FAINT.stroke_width(1))
        .axis_style(INK.stroke_width(1))
        .label_style(text(18))
        .axis_desc_style(text(18))
        .x_desc(TimeUnit::of(report).name)
        .x_labels(13)
        .y_labels(6)
        .x_label_formatter(&|time| format!("{}", (time * 10.0).round() / 10.0))
        .y_label_formatter(&label)
        .draw()
        .map_err(failed)
}

/// In what the time axis counts.
struct TimeUnit {
    name: &'static str,
    seconds: f64,
}

impl TimeUnit {
    const fn of(report: &SimulationReport) -> Self {
        let duration_seconds = report.duration_seconds;
        if duration_seconds < 600.0 {
            Self { name: "seconds", seconds: 1.0 }
        } else if duration_seconds < 4.0 * 3600.0 {
            Self { name: "minutes", seconds: 60.0 }
        } else {
            Self { name: "hours", seconds: 3600.0 }
        }
    }
}

/// The series with [`MERGED`] points in one: when it is on the axis, how
/// many seconds it lasts, and each group's.
fn merged(report: &SimulationReport) -> impl Iterator<Item = (f64, f64, Vec<GroupPoint>)> {
    let points = report.series.windows(2);
    let step = points.map(|pair| pair[1].seconds - pair[0].seconds).next().unwrap_or(1.0);
    let unit = TimeUnit::of(report).seconds;
    report.series.chunks_exact(MERGED).filter_map(move |points| {
        let span = step * float(u64::try_from(points.len()).ok()?);
        let mut groups: Vec<GroupPoint> = Vec::new();
        for point in points {
            groups.resize_with(point.groups.len(), GroupPoint::default);
            for (sum, group) in groups.iter_mut().zip(&point.groups) {
                sum.flows += group.flows;
                sum.at_once += group.at_once;
                sum.after_retry += group.after_retry;
                sum.refused_packets += group.refused_packets;
            }
        }
        Some(((points.first()?.seconds + span / 2.0) / unit, span, groups))
    })
}

const fn succeeded(group: &GroupPoint) -> u64 {
    group.at_once + group.after_retry
}

fn colours() -> impl Iterator<Item = RGBColor> {
    COLOURS.into_iter().cycle()
}

fn end(report: &SimulationReport) -> f64 {
    report.duration_seconds / TimeUnit::of(report).seconds
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn failed(error: impl Display) -> PlotError {
    PlotError::Draw(error.to_string())
}
