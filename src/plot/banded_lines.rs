//! A line a method in its band: what performance profiles and sample-efficiency curves share.

use anyhow::{Result, ensure};

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key};
use super::columns::Columns;
use super::intervals::INTERVAL;
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
            None => lines.push(Line { method, points: vec![point] }),
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
    let mut entries: Vec<Entry> = lines.iter().map(of_line).collect();
    if lines.iter().flat_map(|line| &line.points).any(|point| point.ends.is_some()) {
        entries.push(Entry::new(Key::Area(style::REFERENCE, 2.0 * style::BAND_OPACITY), INTERVAL));
    }
    entries
}

pub(super) fn draw(area: &Area, title: &str, lines: &[Line], x: &Axis, y: &Axis) -> Result<()> {
    let mut plot = canvas::plot(area, title, x, y)?;
    // All bands below all lines.
    for line in lines {
        let bounds: Vec<_> =
            line.points.iter().filter_map(|point| point.ends.map(|(low, high)| (point.x, low, high))).collect();
        if bounds.len() > 1 {
            canvas::band(&mut plot, &bounds, style::method(&line.method).color, style::BAND_OPACITY)?;
        }
    }
    for (number, line) in lines.iter().enumerate() {
        let look = style::method(&line.method);
        let points: Vec<_> = line.points.iter().map(|point| (point.x, point.y)).collect();
        canvas::line(&mut plot, &points, look.color, style::LINE_WIDTH)?;
        // Not at the same x for all, where lines lie on each other.
        let every = points.len().div_ceil(MARKS);
        let marked: Vec<_> = points.iter().copied().skip(number % every).step_by(every).collect();
        canvas::marks(&mut plot, &marked, look)?;
    }
    Ok(())
}
