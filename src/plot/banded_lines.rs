//! A line a method in its band: what performance profiles and sample-efficiency curves share.

use anyhow::{Result, ensure};
use std::ops::Range;

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Plot};
use super::columns::Columns;
use super::intervals::INTERVAL;
use super::runs::Mean;
use super::style::MethodStyle;
use super::{fonts, style};

/// A longer line is marked at about so many of its points: two methods may differ in their marks alone.
const MARKS: usize = 12;

pub(super) struct Point {
    pub x: f64,
    pub y: f64,
    /// Of the band, where there is one.
    pub ends: Option<(f64, f64)>,
}

/// A method's points, ascending in x.
pub(super) struct Line {
    pub method: String,
    pub points: Vec<Point>,
    /// The last point's x and y with their intervals, of a line that has them there alone.
    pub end: Option<[Mean; 2]>,
}

impl Line {
    pub fn places(&self) -> Vec<(f64, f64)> {
        self.points.iter().map(|point| (point.x, point.y)).collect()
    }

    /// Every y that the line and its band reach.
    pub fn heights(&self) -> impl Iterator<Item = f64> {
        self.points.iter().flat_map(|point| {
            let (low, high) = point.ends.unwrap_or((point.y, point.y));
            [point.y, low, high]
        })
    }
}

/// The rows of a frame by method, in the order of every legend.
pub(super) fn lines(columns: &Columns, x: &str, y: &str) -> Result<Vec<Line>> {
    let (methods, xs, ys) = (columns.texts("method")?, columns.required_numbers(x)?, columns.required_numbers(y)?);
    let (low, high) = (columns.optional_numbers("low")?, columns.optional_numbers("high")?);
    let mut lines: Vec<Line> = Vec::new();
    for (row, method) in methods.into_iter().enumerate() {
        let (method, ends) = (fonts::clean(&method), low[row].zip(high[row]));
        ensure!(ends.is_none_or(|(low, high)| low <= high), "the interval of row {row} ends below its beginning");
        let point = Point { x: xs[row], y: ys[row], ends };
        match lines.iter_mut().find(|line| line.method == method) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { method, points: vec![point], end: None }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let twice = line.points.windows(2).find(|pair| pair[0].x == pair[1].x);
        ensure!(
            twice.is_none(),
            "two rows of {} at {x} = {}: the frame mixes comparisons",
            line.method,
            twice.map_or(0.0, |pair| pair[0].x)
        );
    }
    lines.sort_by(|a, b| style::order(&a.method).cmp(&style::order(&b.method)));
    Ok(lines)
}

pub(super) fn legend(lines: &[Line]) -> Vec<Entry> {
    let of_line = |line: &Line| Entry::new(Key::Line(style::method(&line.method)), &*line.method);
    lines.iter().map(of_line).chain(band_entry(lines.iter(), INTERVAL)).collect()
}

/// What the bands are, or the intervals at the ends, where there are some.
pub(super) fn band_entry<'a>(lines: impl Iterator<Item = &'a Line> + Clone, text: &str) -> Option<Entry> {
    let bands = lines.clone().any(|line| line.points.iter().any(|point| point.ends.is_some()));
    let at_ends = || lines.clone().any(|line| line.end.is_some_and(|[x, y]| x.ends.or(y.ends).is_some()));
    let key = if bands {
        Key::Area(style::REFERENCE, 2.0 * style::BAND_OPACITY)
    } else if at_ends() {
        Key::Stroke(style::REFERENCE)
    } else {
        return None;
    };
    Some(Entry::new(key, text))
}

pub(super) fn draw(area: &Area, title: &str, lines: &[Line], x: &Axis, y: &Axis) -> Result<()> {
    let mut plot = canvas::plot(area, title, x, y)?;
    // All bands below all lines.
    for line in lines {
        band(&mut plot, line)?;
    }
    for (number, line) in lines.iter().enumerate() {
        let look = style::method(&line.method);
        canvas::line(&mut plot, &line.places(), look.color, style::LINE_WIDTH)?;
        marks(&mut plot, line, number, look)?;
    }
    Ok(())
}

/// The band below a line, and the intervals at its end, cut off where the panel ends.
pub(super) fn band(plot: &mut Plot, line: &Line) -> Result<()> {
    let color = style::method(&line.method).color;
    let bounds: Vec<_> =
        line.points.iter().filter_map(|point| point.ends.map(|(low, high)| (point.x, low, high))).collect();
    if bounds.len() > 1 {
        canvas::band(plot, &bounds, color, style::BAND_OPACITY)?;
    }
    let Some([x, y]) = line.end else { return Ok(()) };
    let inside = |at: f64, visible: Range<f64>| at.clamp(visible.start, visible.end);
    if let Some((low, high)) = x.ends {
        let ends = [low, high].map(|at| (inside(at, plot.x_range()), y.value));
        canvas::line(plot, &ends, color, 1.25)?;
    }
    if let Some((low, high)) = y.ends {
        let ends = [low, high].map(|at| (x.value, inside(at, plot.y_range())));
        canvas::line(plot, &ends, color, 1.25)?;
    }
    Ok(())
}

/// Marks at some of a line's points, not at the same x for lines of another `number`, where they lie on each other; or at its
/// end, where it has intervals.
pub(super) fn marks(plot: &mut Plot, line: &Line, number: usize, look: MethodStyle) -> Result<()> {
    if let Some([x, y]) = line.end {
        return canvas::marks(plot, &[(x.value, y.value)], look);
    }
    let every = line.points.len().div_ceil(MARKS);
    let marked: Vec<_> = line.places().into_iter().skip(number % every).step_by(every).collect();
    canvas::marks(plot, &marked, look)
}
