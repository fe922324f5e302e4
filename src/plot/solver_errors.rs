//! How far off q is against the time that finding α takes.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::span;
use super::{Figure, style};

/// Mean total variation between q and q* over the time a pair takes, both logarithmic: one panel for each gap between
/// policy and target, one mark for each solver.
///
/// Columns: `solver` (text), `gap`, `q_error`, `microseconds` (positive numbers); every gap has the same solvers.
///
/// # Errors
/// No rows, a missing column or one of another type, a null; a number that is not positive; solvers that differ from
/// gap to gap, or more of them than there are marks.
pub fn solver_errors(solvers: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(solvers, "solver_errors", "the frame of derivation::solvers")?;
    let names = columns.texts("solver")?;
    let [gaps, errors, times] = ["gap", "q_error", "microseconds"].map(|name| columns.required_numbers(name));
    let (gaps, errors, times) = (gaps?, errors?, times?);
    ensure!(errors.iter().chain(&times).all(|x| *x > 0.0), "`q_error` and `microseconds` must be positive");
    let mut panels: Vec<f64> = Vec::new();
    let mut solvers: Vec<String> = Vec::new();
    for (gap, name) in gaps.iter().zip(&names) {
        if !panels.contains(gap) {
            panels.push(*gap);
        }
        if !solvers.contains(name) {
            solvers.push(name.clone());
        }
    }
    ensure!(
        names.len() == panels.len() * solvers.len(),
        "every gap must have the same solvers: {} rows for {} gaps and {} solvers",
        names.len(),
        panels.len(),
        solvers.len()
    );
    ensure!(solvers.len() <= style::SERIES.len(), "at most {} solvers can be told apart", style::SERIES.len());
    let sheet = Sheet {
        legend: solvers.iter().zip(style::SERIES).map(|(name, mark)| Entry::new(Key::Line(mark), name)).collect(),
        columns: Sheet::columns_for(panels.len()),
        panel_height: 250.0,
        panels: panels.len(),
    };
    let (low, high) = span(errors.iter().copied());
    let (fast, slow) = span(times.iter().copied());
    let decade = |x: f64| 10f64.powf(x);
    sheet.draw(|panel, area| {
        let x = Axis::logarithmic("µs a pair (logarithmic)", decade(fast.log10().floor()), decade(slow.log10().ceil()));
        let y = Axis::logarithmic("total variation to q*", low / 3.0, high * 3.0);
        let mut plot = canvas::plot(area, &format!("gap {}", panels[panel]), &x, &y)?;
        for (solver, mark) in solvers.iter().zip(style::SERIES) {
            let rows = (0..names.len()).filter(|&i| gaps[i] == panels[panel] && names[i] == *solver);
            let points: Vec<_> = rows.map(|i| (times[i].log10(), errors[i].log10())).collect();
            canvas::marks(&mut plot, &points, mark)?;
        }
        Ok(())
    })
}
