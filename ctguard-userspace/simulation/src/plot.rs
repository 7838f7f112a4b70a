//! Draws fill, shares, refusals and success on one time axis.

use std::{fs, io, path::Path};

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
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _},
    element::{Circle, Rectangle, Text},
    series::{DashedLineSeries, LineSeries},
    style::{
        Color as _, FontStyle, IntoFont as _, RGBColor, TextStyle, WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};
use thiserror::Error;

use super::{
    outcome::{Counts, FillPoint},
    quantity::ratio,
    report::{Point, SimulationReport},
};
use ctguard_units::real;

/// Size of the head and of each panel, in pixels.
const WIDTH: u32 = 1600;
const HEAD: u32 = 120;
const PANEL: u32 = 330;
/// Where text begins, in line with the axes.
const LEFT: i32 = 120;
/// Average.
const LETTER_WIDTH: i32 = 11;
/// Points of the series are merged, so that small groups show more than noise.
const MERGED: usize = 4;

// Okabe and Ito's colours, which colour-blind readers can distinguish.
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

impl From<DrawingAreaErrorKind<io::Error>> for PlotError {
    fn from(error: DrawingAreaErrorKind<io::Error>) -> Self {
        Self::Draw(error.to_string())
    }
}

/// Draws the report into an SVG file.
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
        whole.fill(&WHITE)?;
        let (head, panels) = whole.split_vertically(HEAD);
        let (fill, panels) = panels.split_vertically(PANEL);
        let (shares, panels) = panels.split_vertically(PANEL);
        let (refused, success) = panels.split_vertically(PANEL);
        draw_head(&head, report)?;
        draw_fill(&fill, report)?;
        let title = "Share of the new flows that get their entry, %";
        draw_ratios(&shares, report, title, |points, index| {
            let all = (0..report.groups.len()).map(|group| sum(points, group, Counts::succeeded));
            (sum(points, index, Counts::succeeded), all.sum())
        })?;
        draw_refused(&refused, report)?;
        let title = "New flows that get their entry at the first try, %";
        draw_ratios(&success, report, title, |points, index| {
            (sum(points, index, |group| group.at_once), sum(points, index, |group| group.flows))
        })?;
        whole.present()?;
    }
    Ok(svg)
}

fn draw_head(area: &Area<'_>, report: &SimulationReport) -> Result<(), PlotError> {
    let max = report.table.max_entries;
    let title = format!("{}: table of {max} entries, seed {}", report.scenario, report.seed);
    let style = ("sans-serif", 30, FontStyle::Bold).into_font().color(&INK);
    area.draw(&Text::new(title, (LEFT, 18), style))?;
    let mut at = LEFT;
    for (group, colour) in report.groups.iter().zip(colours()) {
        let sample = Rectangle::new([(at, 80), (at + 36, 86)], colour.filled());
        area.draw(&sample)?;
        area.draw(&Text::new(group.name.clone(), (at + 46, 72), text(20)))?;
        at += 76 + LETTER_WIDTH * i32::try_from(group.name.chars().count()).unwrap_or(0);
    }
    Ok(())
}

fn draw_fill(area: &Area<'_>, report: &SimulationReport) -> Result<(), PlotError> {
    let mut panel = linear_panel(area, report, "Connection table, % of its entries")?;
    let target = report.table.target_ratio * 100.0;
    let line = [(0.0, target), (end(report), target)];
    let line = DashedLineSeries::new(line, 12, 8, INK.stroke_width(1));
    panel.draw_series(line)?;
    let style = text(18).pos(Pos::new(HPos::Left, VPos::Bottom));
    let label = Text::new("target", (end(report) * 0.005, target + 1.0), style);
    panel.draw_series([label])?;
    let max = real(report.table.max_entries) / 100.0;
    let unit = TimeUnit::of(report).seconds;
    let of = |entries: fn(&FillPoint) -> u64| {
        let points = report.series.iter();
        points.map(move |point| (point.seconds / unit, real(entries(&point.fill)) / max))
    };
    // The table may have been fuller between two samples.
    let peaks = LineSeries::new(of(|fill| fill.peak), FAINT.stroke_width(5));
    panel.draw_series(peaks)?;
    let samples = LineSeries::new(of(|fill| fill.entries), INK.stroke_width(3));
    panel.draw_series(samples)?;
    Ok(())
}

/// A line for each group. `ratio_of` finds a group's part and what it is a part of.
fn draw_ratios(
    area: &Area<'_>,
    report: &SimulationReport,
    title: &str,
    ratio_of: impl Fn(&[Point], usize) -> (u64, u64),
) -> Result<(), PlotError> {
    let mut panel = linear_panel(area, report, title)?;
    for (index, colour) in (0..report.groups.len()).zip(colours()) {
        let points: Vec<_> = merged(report)
            .map(|(seconds, _, points)| {
                let (part, whole) = ratio_of(points, index);
                ratio(part, whole).map(|ratio| (seconds, ratio * 100.0))
            })
            .collect();
        // The line is broken where there were no flows.
        for line in points.split(Option::is_none) {
            let line: Vec<_> = line.iter().copied().flatten().collect();
            if let [point] = line.as_slice() {
                panel.draw_series([Circle::new(*point, 3, colour.filled())])?;
            }
            panel.draw_series(LineSeries::new(line, colour.stroke_width(3)))?;
        }
    }
    Ok(())
}

fn draw_refused(area: &Area<'_>, report: &SimulationReport) -> Result<(), PlotError> {
    let rates = |index: usize| {
        merged(report).map(move |(seconds, span, points)| {
            (seconds, real(sum(points, index, |group| group.refused.total())) / span)
        })
    };
    let all = (0..report.groups.len()).flat_map(rates);
    let highest = all.map(|(_, rate)| rate).fold(100.0, f64::max);
    let mut chart = chart(area, "Packets refused a second");
    let mut panel = chart.build_cartesian_2d(0.0..end(report), (0.1..highest * 1.5).log_scale())?;
    mesh(&mut panel, report, &|rate| format!("{rate}"))?;
    for (index, colour) in (0..report.groups.len()).zip(colours()) {
        // A logarithmic scale has no 0: it is drawn on the axis.
        let points = rates(index).map(|(seconds, rate)| (seconds, rate.max(0.1)));
        panel.draw_series(LineSeries::new(points, colour.stroke_width(3)))?;
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
    let mut panel = chart.build_cartesian_2d(0.0..end(report), 0.0..105.0)?;
    mesh(&mut panel, report, &|percent| format!("{percent:.0}"))?;
    Ok(panel)
}

fn chart<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    // A picture without a title is better than none.
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
        .draw()?;
    Ok(())
}

/// Unit of the time axis.
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

/// The series in chunks: the place on the axis, the length in seconds, and the points.
fn merged(report: &SimulationReport) -> impl Iterator<Item = (f64, f64, &[Point])> {
    let points = report.series.windows(2);
    let step = points.map(|pair| pair[1].seconds - pair[0].seconds).next().unwrap_or(1.0);
    let unit = TimeUnit::of(report).seconds;
    report.series.chunks_exact(MERGED).map(move |points| {
        let span = step * real(u64::try_from(points.len()).unwrap_or(u64::MAX));
        ((points[0].seconds + span / 2.0) / unit, span, points)
    })
}

fn sum(points: &[Point], group: usize, count: fn(&Counts) -> u64) -> u64 {
    points.iter().filter_map(|point| point.groups.get(group)).map(count).sum()
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
