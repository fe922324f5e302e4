//! A panel a method, in front of the lines of all others: what nine bands in one panel would hide.

use anyhow::Result;

use super::Figure;
use super::axis::Axis;
use super::banded_lines::{self as banded, Line};
use super::canvas::{self, Area, Entry, Key, Sheet};
use super::style;

/// At most so many bands can be told apart in one panel.
pub(super) const TOGETHER: usize = 4;
/// The method that every panel compares with, where it is there.
const COMPARED: &str = "qstar";
const COLUMNS: usize = 3;

/// The methods of one task on common axes.
pub(super) struct Group {
    pub name: String,
    pub lines: Vec<Line>,
    pub x: Axis,
    pub y: Axis,
}

/// Few methods stand in one panel a task, more in a panel each. `band` says what the bands are.
pub(super) fn draw(groups: &[Group], band: &str) -> Result<Figure> {
    let most = groups.iter().map(|group| group.lines.len()).max().unwrap_or(0);
    if most <= TOGETHER { together(groups, band) } else { apart(groups, band) }
}

fn together(groups: &[Group], band: &str) -> Result<Figure> {
    let mut names: Vec<&str> = groups.iter().flat_map(|group| &group.lines).map(|line| line.method.as_str()).collect();
    names.sort_by_key(|name| style::order(name));
    names.dedup();
    let of_method = |name: &str| Entry::new(Key::Line(style::method(name)), name);
    let sheet = Sheet {
        legend: names.into_iter().map(of_method).chain(banded::band_entry(lines(groups), band)).collect(),
        columns: Sheet::columns_for(groups.len()),
        panel_height: 290.0,
        panels: groups.len(),
    };
    sheet.draw(|index, area| {
        let Group { name, lines, x, y } = &groups[index];
        banded::draw(area, name, lines, x, y)
    })
}

fn apart(groups: &[Group], band: &str) -> Result<Figure> {
    // Every task begins a row of its own.
    let places: Vec<Option<(&Group, usize)>> = groups
        .iter()
        .flat_map(|group| {
            let whole = group.lines.len().next_multiple_of(COLUMNS);
            (0..whole).map(move |line| (line < group.lines.len()).then_some((group, line)))
        })
        .collect();
    let mut legend = vec![Entry::new(Key::Stroke(style::BEHIND), "the other methods")];
    if lines(groups).any(|line| line.method == COMPARED) {
        legend.push(Entry::new(Key::Dashes(style::method(COMPARED).color), COMPARED));
    }
    legend.extend(banded::band_entry(lines(groups), band));
    let last = places.iter().rposition(Option::is_some).map_or(0, |place| place + 1);
    let sheet = Sheet { legend, columns: Sheet::columns_for(COLUMNS), panel_height: 196.0, panels: last };
    sheet.draw(|index, area| {
        let Some((group, line)) = places[index] else { return Ok(()) };
        let method = &group.lines[line].method;
        let title = if groups.len() == 1 { method.clone() } else { format!("{}: {method}", group.name) };
        let labelled = |axis: &Axis, shown: bool| if shown { axis.clone() } else { axis.unlabelled() };
        // The labels stand at the left and below the lowest panel of each column.
        let lowest = line + COLUMNS >= group.lines.len();
        let (x, y) = (labelled(&group.x, lowest), labelled(&group.y, index % COLUMNS == 0));
        panel(area, &title, group, line, &x, &y)
    })
}

fn lines(groups: &[Group]) -> impl Iterator<Item = &Line> + Clone {
    groups.iter().flat_map(|group| &group.lines)
}

fn panel(area: &Area, title: &str, group: &Group, shown: usize, x: &Axis, y: &Axis) -> Result<()> {
    let mut plot = canvas::plot(area, title, x, y)?;
    let own = &group.lines[shown];
    banded::band(&mut plot, own)?;
    let others = || group.lines.iter().filter(|line| line.method != own.method);
    for line in others().filter(|line| line.method != COMPARED) {
        canvas::line(&mut plot, &line.places(), style::BEHIND, 1.0)?;
    }
    for line in others().filter(|line| line.method == COMPARED) {
        canvas::dashes(&mut plot, line.places(), style::method(COMPARED).color, 1.25)?;
    }
    let look = style::method(&own.method);
    canvas::line(&mut plot, &own.places(), look.color, style::LINE_WIDTH)?;
    banded::marks(&mut plot, own, 0, look)
}
