//! A row a method with a value and its interval: what the figures of aggregates and of improvements share.

use anyhow::{Result, ensure};

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key, Plot};
use super::columns::Columns;
use super::crossing::span;
use super::style::MethodStyle;
use super::{fonts, style};

/// What the ends of rows are, and of bands.
pub(super) const INTERVAL: &str = "95 % bootstrap interval over runs";

/// One row of a panel.
pub(super) struct Row {
    /// What stands left of it.
    pub name: String,
    pub look: MethodStyle,
    pub value: f64,
    pub ends: Option<(f64, f64)>,
}

/// Rows under the text of a column, in the order in which they appear.
pub(super) struct Panel {
    pub title: String,
    pub rows: Vec<Row>,
}

/// The rows of a frame by the column `panel`, in the order of every legend: each with the name in the column `name` and the
/// look of that name; `low` and `high` are the columns of the ends.
pub(super) fn panels(
    columns: &Columns,
    [panel, name, value]: [&str; 3],
    [low, high]: [&str; 2],
    look: fn(&str) -> MethodStyle,
) -> Result<Vec<Panel>> {
    let titles = columns.texts(panel)?;
    let (names, values) = (columns.texts(name)?, columns.required_numbers(value)?);
    let (low, high) = (columns.optional_numbers(low)?, columns.optional_numbers(high)?);
    let mut panels: Vec<Panel> = Vec::new();
    for (row, title) in titles.into_iter().enumerate() {
        let ends = low[row].zip(high[row]);
        ensure!(ends.is_none_or(|(low, high)| low <= high), "the interval of row {row} ends below its beginning");
        let name = fonts::clean(&names[row]);
        let found = Row { look: look(&name), name, value: values[row], ends };
        let title = fonts::clean(&title);
        match panels.iter_mut().find(|panel| panel.title == title) {
            Some(panel) => {
                let twice = panel.rows.iter().any(|row| row.name == found.name);
                ensure!(!twice, "two rows of {} and {title}: the frame mixes comparisons", found.name);
                panel.rows.push(found);
            }
            None => panels.push(Panel { title, rows: vec![found] }),
        }
    }
    for panel in &mut panels {
        panel.rows.sort_by(|a, b| style::order(&a.name).cmp(&style::order(&b.name)));
    }
    Ok(panels)
}

/// What the lines are, where there are some.
pub(super) fn legend(panels: &[Panel], interval: &str) -> Vec<Entry> {
    let some = panels.iter().flat_map(|panel| &panel.rows).any(|row| row.ends.is_some());
    let entry = || Entry::new(Key::Stroke(style::REFERENCE), interval);
    some.then(entry).into_iter().collect()
}

/// What a panel needs in height for its rows.
pub(super) fn height(panels: &[Panel]) -> f64 {
    let rows = panels.iter().map(|panel| panel.rows.len()).max().unwrap_or(1);
    90.0 + 24.0 * rows as f64
}

/// From the lowest end to the highest.
pub(super) fn reach(panels: &[Panel]) -> (f64, f64) {
    let rows = panels.iter().flat_map(|panel| &panel.rows);
    span(rows.flat_map(|row| {
        let (low, high) = row.ends.unwrap_or((row.value, row.value));
        [row.value, low, high]
    }))
}

/// Draws the rows from top to bottom; `reference` is a dashed line across them.
pub(super) fn draw(area: &Area, panel: &Panel, x: &Axis, reference: Option<f64>) -> Result<()> {
    let names: Vec<&str> = panel.rows.iter().map(|row| row.name.as_str()).collect();
    let mut plot = named(area, &panel.title, &names, x, true)?;
    if let Some(reference) = reference {
        across(&mut plot, names.len(), reference)?;
    }
    for (row, found) in panel.rows.iter().enumerate() {
        mark(&mut plot, place(row, names.len()), found.value, found.ends, found.look)?;
    }
    Ok(())
}

/// A panel with a row for every name, from top to bottom. The names stand on its left if they are `shown`: panels side by side
/// need them once.
pub(super) fn named<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
    names: &[&str],
    x: &Axis,
    shown: bool,
) -> Result<Plot<'a, 'b>> {
    let text = |name: &str| if shown { shortened(name) } else { String::new() };
    let ticks = names.iter().enumerate().map(|(row, name)| (place(row, names.len()), text(name)));
    let y = Axis { label: String::new(), low: -0.6, high: names.len() as f64 - 0.4, ticks: ticks.collect() };
    canvas::plot(area, title, x, &y)
}

/// The height of a row.
pub(super) fn place(row: usize, count: usize) -> f64 {
    (count - 1 - row) as f64
}

/// A dashed line across all rows.
pub(super) fn across(plot: &mut Plot, count: usize, x: f64) -> Result<()> {
    canvas::dashes(plot, [(x, -0.6), (x, count as f64 - 0.4)], style::REFERENCE, 1.25)
}

/// A value with its interval, cut off at the ends of the axis.
pub(super) fn mark(plot: &mut Plot, y: f64, x: f64, ends: Option<(f64, f64)>, look: MethodStyle) -> Result<()> {
    if let Some((low, high)) = ends {
        let visible = plot.x_range();
        let inside = |x: f64| x.clamp(visible.start, visible.end);
        canvas::line(plot, &[(inside(low), y), (inside(high), y)], look.color, style::LINE_WIDTH)?;
    }
    canvas::marks(plot, &[(x, y)], look)
}

/// So that a long name leaves room for its row.
fn shortened(name: &str) -> String {
    fonts::fit(name, style::TICK_SIZE, false, 120.0)
}
