//! The sheet that a figure is drawn on: panels in rows below a legend, in CSS pixels.

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::style::{self, Mark};
use super::{Figure, fonts};

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// plotters knows whole units only. A unit is a quarter of a pixel, so that curves have no steps.
const UNITS: f64 = 4.0;

pub(super) fn px(pixels: f64) -> i32 {
    (pixels * UNITS).round() as i32
}

fn units(pixels: f64) -> u32 {
    px(pixels).max(0) as u32
}

/// Draws on a white sheet of `width` by `height` pixels.
pub(super) fn draw(width: f64, height: f64, paint: impl FnOnce(&Area) -> Result<()>) -> Result<Figure> {
    let mut svg = String::new();
    let (w, h) = (units(width), units(height));
    {
        let area = SVGBackend::with_string(&mut svg, (w, h)).into_drawing_area();
        area.fill(&WHITE)?;
        paint(&area)?;
        area.present()?;
    }
    // The view box counts quarter pixels, the size is in pixels; a narrow page shrinks the figure.
    let in_units = format!("width=\"{w}\" height=\"{h}\"");
    let in_pixels = format!("width=\"{width}\" height=\"{height}\" style=\"max-width:100%;height:auto\"");
    Ok(Figure { svg: fonts::set_indices(&svg.replacen(&in_units, &in_pixels, 1)) })
}

/// How a text looks.
pub(super) struct Text {
    pub size: f64,
    pub bold: bool,
    pub color: RGBColor,
    pub anchor: HPos,
}

impl Text {
    pub fn label(color: RGBColor) -> Self {
        Self { size: style::LABEL_SIZE, bold: false, color, anchor: HPos::Center }
    }
}

/// Writes `text` centred on the height of `at`.
pub(super) fn text(area: &Area, text: &str, at: (f64, f64), look: &Text) -> Result<()> {
    let face = if look.bold { FontStyle::Bold } else { FontStyle::Normal };
    let style = font(look.size, face).color(&look.color).pos(Pos::new(look.anchor, VPos::Center));
    Ok(area.draw_text(text, &style, (px(at.0), px(at.1)))?)
}

fn font(size: f64, face: FontStyle) -> FontDesc<'static> {
    // The backend divides by 1.24 to come from a line's height to the size of its font.
    FontDesc::new(FontFamily::Name(style::FONT), size * UNITS * 1.24, face)
}

fn label_style(size: f64) -> TextStyle<'static> {
    font(size, FontStyle::Normal).color(&style::TEXT)
}

/// What a legend's entry shows before its text.
pub(super) enum Key {
    /// A method's line with its mark.
    Line(style::MethodStyle),
    /// A mark without a line.
    Mark(style::MethodStyle),
    /// A method's points, light to dark.
    Ramp(RGBColor),
    /// A line without marks.
    Stroke(RGBColor),
    Dashes(RGBColor),
    Area(RGBColor, f64),
}

pub(super) struct Entry {
    pub key: Key,
    pub text: String,
}

impl Entry {
    pub fn new(key: Key, text: impl Into<String>) -> Self {
        Self { key, text: text.into() }
    }
}

/// A legend above panels, row by row.
pub(super) struct Sheet {
    pub legend: Vec<Entry>,
    /// The widths of a row's panels.
    pub columns: Vec<f64>,
    pub panel_height: f64,
    pub panels: usize,
}

const MARGIN: f64 = 8.0;
const LEGEND_ROW: f64 = 20.0;
const KEY_WIDTH: f64 = 30.0;
const KEY_GAP: f64 = 6.0;
const ENTRY_GAP: f64 = 18.0;

impl Sheet {
    /// The usual columns for one panel a task.
    pub fn columns_for(panels: usize) -> Vec<f64> {
        match panels {
            1 => vec![style::NARROW],
            2 | 4 => vec![style::WIDE / 2.0; 2],
            _ => vec![style::WIDE / 3.0; 3],
        }
    }

    /// Draws the legend, and every panel by its number.
    pub fn draw(&self, mut panel: impl FnMut(usize, &Area) -> Result<()>) -> Result<Figure> {
        let width: f64 = self.columns.iter().sum();
        let places = self.legend_places(width);
        let legend_rows = places.last().map_or(0.0, |place| place.1 + 1.0);
        let top = MARGIN + LEGEND_ROW * legend_rows;
        let rows = self.panels.div_ceil(self.columns.len());
        draw(width, top + self.panel_height * rows as f64, |sheet| {
            for (entry, (x, row)) in self.legend.iter().zip(&places) {
                let y = MARGIN + LEGEND_ROW * (row + 0.5);
                draw_entry(sheet, entry, *x, y, width)?;
            }
            for index in 0..self.panels {
                let (row, column) = (index / self.columns.len(), index % self.columns.len());
                let left: f64 = self.columns[..column].iter().sum();
                let y = top + self.panel_height * row as f64;
                let area = sheet.clone().shrink((px(left), px(y)), (px(self.columns[column]), px(self.panel_height)));
                panel(index, &area)?;
            }
            Ok(())
        })
    }

    /// The left end and the row of every entry.
    fn legend_places(&self, width: f64) -> Vec<(f64, f64)> {
        let (mut x, mut row) = (MARGIN, 0.0);
        let place = |entry: &Entry| {
            let text = fonts::fit(&entry.text, style::TICK_SIZE, false, text_room(width));
            let needed = KEY_WIDTH + KEY_GAP + fonts::width(&text, style::TICK_SIZE, false);
            if x > MARGIN && x + needed > width - MARGIN {
                x = MARGIN;
                row += 1.0;
            }
            let at = (x, row);
            x += needed + ENTRY_GAP;
            at
        };
        self.legend.iter().map(place).collect()
    }
}

fn text_room(width: f64) -> f64 {
    width - 2.0 * MARGIN - KEY_WIDTH - KEY_GAP
}

fn draw_entry(sheet: &Area, entry: &Entry, x: f64, y: f64, width: f64) -> Result<()> {
    let bar = |from: f64, to: f64, color: ShapeStyle| {
        let corners = [(px(x + from), px(y - 5.0)), (px(x + to), px(y + 5.0))];
        sheet.draw(&Rectangle::new(corners, color))
    };
    let line = |from: f64, to: f64, color: RGBColor| {
        let ends = [(px(x + from), px(y)), (px(x + to), px(y))];
        sheet.draw(&PathElement::new(ends, stroke(color, style::LINE_WIDTH)))
    };
    let middle = (px(x + 0.5 * KEY_WIDTH), px(y));
    match &entry.key {
        Key::Line(method) => {
            line(0.0, KEY_WIDTH, method.color)?;
            sheet.draw(&mark(middle, method.mark, method.color))?;
        }
        Key::Mark(look) => sheet.draw(&mark(middle, look.mark, look.color))?,
        Key::Ramp(color) => {
            const STEPS: usize = 15;
            for step in 0..STEPS {
                let share = |step: usize| KEY_WIDTH * step as f64 / STEPS as f64;
                let shade = style::ramp(*color, step as f64 / (STEPS - 1) as f64);
                bar(share(step), share(step + 1), shade.filled())?;
            }
        }
        Key::Stroke(color) => line(0.0, KEY_WIDTH, *color)?,
        Key::Dashes(color) => {
            for start in [0.0, 12.0, 24.0] {
                line(start, start + 6.0, *color)?;
            }
        }
        Key::Area(color, opacity) => bar(0.0, KEY_WIDTH, color.mix(*opacity).filled())?,
    }
    let shown = fonts::fit(&entry.text, style::TICK_SIZE, false, text_room(width));
    let look = Text { size: style::TICK_SIZE, anchor: HPos::Left, ..Text::label(style::TEXT) };
    text(sheet, &shown, (x + KEY_WIDTH + KEY_GAP, y), &look)
}

/// A panel's title, grid and labelled axes; what it returns takes the data.
pub(super) fn plot<'a, 'b>(area: &'a Area<'b>, title: &str, x: &Axis, y: &Axis) -> Result<Plot<'a, 'b>> {
    const TITLE_HEIGHT: f64 = 30.0;
    const TICK: f64 = 4.0;
    // Ticks at the ends of an axis need room for half of their labels.
    const RIGHT: f64 = 16.0;
    const BOTTOM: f64 = 44.0;
    let widest = |axis: &Axis| {
        let widths = axis.ticks.iter().map(|(_, text)| fonts::width(text, style::TICK_SIZE, false));
        widths.fold(0.0, f64::max)
    };
    // Rows whose names stand in the panel beside need no room for them.
    let nameless = y.label.is_empty() && y.ticks.iter().all(|(_, text)| text.is_empty());
    let left = if nameless { 20.0 } else { (widest(y) + 2.0 * TICK + style::LABEL_SIZE + 10.0).max(58.0) };

    let (width, _) = area.dim_in_pixel();
    let room = f64::from(width) / UNITS - left - RIGHT;
    let look = Text { size: style::TITLE_SIZE, bold: true, ..Text::label(style::TEXT) };
    let shown = fonts::fit(title, look.size, look.bold, room);
    let middle = (left + 0.5 * room, 0.55 * TITLE_HEIGHT);
    text(area, &shown, middle, &look)?;

    let mut plot = ChartBuilder::on(area)
        .margin_top(units(TITLE_HEIGHT))
        .margin_right(units(RIGHT))
        .margin_left(units(4.0))
        .margin_bottom(units(4.0))
        .set_label_area_size(LabelAreaPosition::Left, units(left - 4.0))
        .set_label_area_size(LabelAreaPosition::Bottom, units(BOTTOM))
        .build_cartesian_2d(x.clone(), y.clone())
        .context("laying out a panel")?;
    plot.configure_mesh()
        .bold_line_style(stroke(style::GRID, 1.0))
        .light_line_style(TRANSPARENT)
        .axis_style(stroke(style::AXIS, 1.0))
        .set_all_tick_mark_size(px(TICK))
        .label_style(label_style(style::TICK_SIZE))
        .axis_desc_style(label_style(style::LABEL_SIZE))
        .x_desc(&x.label)
        .y_desc(&y.label)
        .draw()?;
    Ok(plot)
}

pub(super) fn stroke(color: RGBColor, width: f64) -> ShapeStyle {
    color.stroke_width(units(width))
}

/// A line through points.
pub(super) fn line(plot: &mut Plot, points: &[(f64, f64)], color: RGBColor, width: f64) -> Result<()> {
    let path = PathElement::new(points.to_vec(), stroke(color, width));
    plot.draw_series([path])?;
    Ok(())
}

/// A dashed line through points.
pub(super) fn dashes<I>(plot: &mut Plot, points: I, color: RGBColor, width: f64) -> Result<()>
where
    I: IntoIterator<Item = (f64, f64)>,
{
    let points: Vec<_> = points.into_iter().collect();
    let series = DashedLineSeries::new(points, px(6.0), px(6.0), stroke(color, width));
    plot.draw_series(series)?;
    Ok(())
}

/// The area between two lines over the same x, cut off at the ends of the y axis.
pub(super) fn band(plot: &mut Plot, bounds: &[(f64, f64, f64)], color: RGBColor, opacity: f64) -> Result<()> {
    let visible = plot.y_range();
    let inside = |y: f64| y.clamp(visible.start, visible.end);
    let above = bounds.iter().map(|(x, _, high)| (*x, inside(*high)));
    let below = bounds.iter().rev().map(|(x, low, _)| (*x, inside(*low)));
    let outline: Vec<_> = above.chain(below).collect();
    plot.draw_series([Polygon::new(outline, color.mix(opacity).filled())])?;
    Ok(())
}

/// A method's mark at a point.
pub(super) fn mark(at: (i32, i32), shape: Mark, color: RGBColor) -> Polygon<(i32, i32)> {
    let corners = outline(shape).into_iter().map(|(x, y)| (at.0 + px(x), at.1 - px(y))).collect::<Vec<_>>();
    Polygon::new(corners, color.filled())
}

/// Marks at points of a plot.
pub(super) fn marks(plot: &mut Plot, points: &[(f64, f64)], method: style::MethodStyle) -> Result<()> {
    let marks = points.iter().map(|at| EmptyElement::at(*at) + mark((0, 0), method.mark, method.color));
    plot.draw_series(marks)?;
    Ok(())
}

/// Corners in pixels around the point, upwards positive; all shapes have about the same area.
fn outline(shape: Mark) -> Vec<(f64, f64)> {
    let ring = |corners: u32, radius: f64, turn: f64| -> Vec<(f64, f64)> {
        let angle = |i: u32| std::f64::consts::TAU * (f64::from(i) / f64::from(corners) + turn);
        (0..corners).map(|i| (radius * angle(i).cos(), radius * angle(i).sin())).collect()
    };
    match shape {
        Mark::Circle => ring(24, 3.8, 0.0),
        Mark::Square => ring(4, 4.8, 0.125),
        Mark::Diamond => ring(4, 5.2, 0.0),
        Mark::Triangle => ring(3, 5.4, 0.25),
        Mark::Wedge => ring(3, 5.4, 0.75),
        Mark::Plus => plus(),
        Mark::Cross => {
            let turn = std::f64::consts::FRAC_1_SQRT_2;
            let turned = |(x, y): (f64, f64)| (turn * (x - y), turn * (x + y));
            plus().into_iter().map(turned).collect()
        }
        Mark::Star => {
            let tips = ring(5, 6.0, 0.25);
            let dents = ring(5, 2.6, 0.35);
            tips.into_iter().zip(dents).flat_map(|(tip, dent)| [tip, dent]).collect()
        }
        Mark::Bar => vec![(2.2, 5.0), (2.2, -5.0), (-2.2, -5.0), (-2.2, 5.0)],
    }
}

fn plus() -> Vec<(f64, f64)> {
    let (long, short) = (4.8, 1.6);
    let arm = [(short, short), (long, short), (long, -short)];
    // The same arm, turned by a quarter three times.
    let quarter = |(x, y): (f64, f64), turns: usize| match turns {
        0 => (x, y),
        1 => (y, -x),
        2 => (-x, -y),
        _ => (-y, x),
    };
    (0..4).flat_map(|turns| arm.map(|corner| quarter(corner, turns))).collect()
}
