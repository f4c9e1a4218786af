//! The distributions of latency as a picture: for each round, the share of requests answered within a time.

use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::measure::{Measured, Round};
use crate::options::Kind;

const SIZE: (u32, u32) = (1_120, 480);
const LEGEND: u32 = 48;
const FONT: &str = "Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(0x1f, 0x29, 0x33);
const FAINT: RGBColor = RGBColor(0xe3, 0xe7, 0xeb);
const QUIET: RGBColor = RGBColor(0x61, 0x6e, 0x7c);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws all rounds into an SVG file.
pub(crate) fn draw(file: &Path, all: &[Measured]) -> Result<()> {
    picture(file, all).map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn picture(file: &Path, all: &[Measured]) -> Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let scale = scale(all);
    let (cold, warm) = root.margin(14, 14, 12, 12).split_horizontally(SIZE.0 / 2 - 12);
    for (area, round) in [(cold, Round::Cold), (warm, Round::Warm)] {
        let (plot, legend) = area.margin(0, 0, 8, 8).split_vertically(SIZE.1 - 28 - LEGEND);
        let shown: Vec<_> = all
            .iter()
            .filter(|one| one.row.round == round && one.row.ok > 0)
            .collect();
        curves(&plot, round, &scale, &shown)?;
        key(&legend, &shown)?;
    }
    Ok(root.present()?)
}

/// The range of the time axis, in milliseconds: the same for both rounds, and logarithmic, since the times of a cold
/// burst span two orders of magnitude.
fn scale(all: &[Measured]) -> Range<f64> {
    let answered = || all.iter().filter(|one| one.row.ok > 0);
    let shortest = answered().map(|one| one.latency.min()).min().unwrap_or(1);
    let longest = answered().map(|one| one.latency.max()).max().unwrap_or(1);
    // Room on both sides, and never an empty range.
    (shortest.max(1) as f64 / 1e3 * 0.8)..(longest.max(1) as f64 / 1e3 * 1.2)
}

fn curves(area: &Area<'_>, round: Round, scale: &Range<f64>, shown: &[&Measured]) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{round} round"), (FONT, 19).into_font().color(&INK))
        .margin_right(10)
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(scale.clone().log_scale().with_key_points(ticks(scale)), 0.0..1.0)?;
    chart
        .configure_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(QUIET)
        .label_style((FONT, 13).into_font().color(&QUIET))
        .x_label_formatter(&|ms| format!("{ms}"))
        .x_desc("latency in ms, logarithmic")
        .y_labels(6)
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .y_desc("requests answered")
        .draw()?;
    for one in shown {
        chart.draw_series(LineSeries::new(steps(one, scale), style(one.row.transport)))?;
    }
    Ok(())
}

/// 1, 2 and 5, times the powers of ten.
fn ticks(scale: &Range<f64>) -> Vec<f64> {
    let decades = (-3..=5).map(|power| 10_f64.powi(power));
    decades
        .flat_map(|ten| [ten, ten * 2.0, ten * 5.0])
        .filter(|tick| scale.contains(tick))
        .collect()
}

/// Names the curves, below them: inside the plot there is no place that is free in every result.
fn key(area: &Area<'_>, shown: &[&Measured]) -> Result<()> {
    let (columns, rows) = (2, shown.len().div_ceil(2));
    for (one, cell) in shown
        .iter()
        .zip(area.margin(4, 0, 62, 0).split_evenly((rows, columns)))
    {
        let row = &one.row;
        let text = format!(
            "{}: p50 {:.0}, p99 {:.0} ms",
            row.transport.name(),
            row.p50_ms,
            row.p99_ms
        );
        cell.draw(&PathElement::new([(0, 8), (24, 8)], style(row.transport)))?;
        cell.draw(&Text::new(text, (32, 2), (FONT, 13).into_font().color(&INK)))?;
    }
    Ok(())
}

fn style(kind: Kind) -> ShapeStyle {
    let (color, width) = match kind {
        Kind::H1 => (RGBColor(0xd9, 0x6c, 0x06), 2),
        Kind::H2Single => (RGBColor(0x9b, 0x4f, 0x96), 2),
        Kind::H2Bare => (RGBColor(0x8a, 0x94, 0x9e), 2),
        Kind::H2Pool => (RGBColor(0x0b, 0x6b, 0xcb), 4),
    };
    color.stroke_width(width)
}

/// The corners of the distribution's steps: milliseconds, and the share answered by then.
fn steps(one: &Measured, scale: &Range<f64>) -> Vec<(f64, f64)> {
    let total = one.latency.len() as f64;
    let mut below = 0.0;
    let mut corners = vec![(scale.start, 0.0)];
    for step in one.latency.iter_recorded() {
        let ms = step.value_iterated_to() as f64 / 1e3;
        corners.push((ms, below));
        below += step.count_at_value() as f64 / total;
        corners.push((ms, below));
    }
    corners
}
