//! A row a method with a value and its interval: what the figures of aggregates and of improvements share.

use anyhow::{Result, ensure};

use super::axis::Axis;
use super::canvas::{self, Area, Entry, Key};
use super::columns::Columns;
use super::crossing::span;
use super::{fonts, style};

/// What the ends of rows are, and of bands.
pub(super) const INTERVAL: &str = "95 % bootstrap interval over runs";

/// One row of a panel.
pub(super) struct Row {
    /// Whose look it has, and what stands left of it.
    pub method: String,
    pub value: f64,
    pub ends: Option<(f64, f64)>,
}

/// Rows under the text of a column, in the order in which they appear.
pub(super) struct Panel {
    pub title: String,
    pub rows: Vec<Row>,
}

/// The rows of a frame by the column `panel`, in the order of every legend.
pub(super) fn panels(columns: &Columns, panel: &str, method: &str, value: &str) -> Result<Vec<Panel>> {
    let titles = columns.texts(panel)?;
    let (methods, values) = (columns.texts(method)?, columns.required_numbers(value)?);
    let (low, high) = (columns.optional_numbers("low")?, columns.optional_numbers("high")?);
    let mut panels: Vec<Panel> = Vec::new();
    for (row, title) in titles.into_iter().enumerate() {
        let ends = low[row].zip(high[row]);
        ensure!(ends.is_none_or(|(low, high)| low <= high), "the interval of row {row} ends below its beginning");
        let found = Row { method: fonts::clean(&methods[row]), value: values[row], ends };
        let title = fonts::clean(&title);
        match panels.iter_mut().find(|panel| panel.title == title) {
            Some(panel) => {
                let twice = panel.rows.iter().any(|row| row.method == found.method);
                ensure!(!twice, "two rows of {} and {title}: the frame mixes comparisons", found.method);
                panel.rows.push(found);
            }
            None => panels.push(Panel { title, rows: vec![found] }),
        }
    }
    for panel in &mut panels {
        panel.rows.sort_by(|a, b| style::order(&a.method).cmp(&style::order(&b.method)));
    }
    Ok(panels)
}

/// What the lines are, where there are some.
pub(super) fn legend(panels: &[Panel]) -> Vec<Entry> {
    let some = panels.iter().flat_map(|panel| &panel.rows).any(|row| row.ends.is_some());
    let entry = || Entry::new(Key::Stroke(style::REFERENCE), INTERVAL);
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
    let count = panel.rows.len();
    let place = |row: usize| (count - 1 - row) as f64;
    let names = panel.rows.iter().enumerate().map(|(row, found)| (place(row), shortened(&found.method)));
    let y = Axis { label: String::new(), low: -0.6, high: count as f64 - 0.4, ticks: names.collect() };
    let mut plot = canvas::plot(area, &panel.title, x, &y)?;
    if let Some(reference) = reference {
        canvas::dashes(&mut plot, [(reference, y.low), (reference, y.high)], style::REFERENCE, 1.25)?;
    }
    for (row, found) in panel.rows.iter().enumerate() {
        let look = style::method(&found.method);
        if let Some((low, high)) = found.ends {
            canvas::line(&mut plot, &[(low, place(row)), (high, place(row))], look.color, style::LINE_WIDTH)?;
        }
        canvas::marks(&mut plot, &[(found.value, place(row))], look)?;
    }
    Ok(())
}

/// So that a long name leaves room for its row.
fn shortened(name: &str) -> String {
    fonts::fit(name, style::TICK_SIZE, false, 120.0)
}
