//! Speed-ups that were measured against those that were predicted.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{self, Entry, Key, Sheet};
use super::columns::Columns;
use super::crossing::span;
use super::{Figure, style};

/// How far a prediction may be off, as a share.
const BAR: f64 = 0.15;

/// Measured over predicted speed-up, a mark a way to speculate and a colour a pair, with the diagonal, the band of 15 % around
/// it and the lines at 1, above which speculation pays. Axes are logarithmic.
///
/// A row is one way to speculate. Columns: `pair` (text), `predicted` and `speedup` (numbers above 0).
///
/// # Errors
/// No rows, a missing column or one of another type, a null, a speed-up that is not positive.
///
/// ```
/// use polars::df;
///
/// let speedups = df!("pair" => ["a", "a"], "predicted" => [1.5, 0.8], "speedup" => [1.4, 0.7])?;
/// assert!(qstar::plot::measured_speedup(&speedups)?.svg.contains("Predicted speed-up"));
/// # anyhow::Ok(())
/// ```
pub fn measured_speedup(speedups: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(speedups, "measured_speedup", "the frame of speculation::speedups")?;
    let (predicted, measured) = (columns.required_numbers("predicted")?, columns.required_numbers("speedup")?);
    let mut pairs: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for (row, name) in columns.texts("pair")?.into_iter().enumerate() {
        let (x, y) = (predicted[row], measured[row]);
        ensure!(x > 0.0 && y > 0.0, "speed-ups are positive: row {row} has {y}, predicted {x}");
        let at = (x.log10(), y.log10());
        match pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push(at),
            None => pairs.push((name, vec![at])),
        }
    }
    let look = |index: usize| style::SERIES[index % style::SERIES.len()];
    let mut legend: Vec<Entry> =
        pairs.iter().enumerate().map(|(i, (name, _))| Entry::new(Key::Mark(look(i)), name)).collect();
    legend.push(Entry::new(Key::Dashes(style::AXIS), "as predicted"));
    legend.push(Entry::new(Key::Area(style::REFERENCE, style::BAND_OPACITY), "within 15 %"));
    let (low, high) = span(predicted.iter().chain(&measured).copied().chain([1.0]));
    let (x, y) = (
        Axis::logarithmic("Predicted speed-up", 0.95 * low, 1.05 * high),
        Axis::logarithmic("Measured speed-up", 0.95 * low, 1.05 * high),
    );
    let side = 480.0;
    let sheet = Sheet { legend, columns: vec![side], panel_height: side + 4.0, panels: 1 };
    sheet.draw(|_, area| {
        let mut plot = canvas::plot(area, "What the formula says, and what it took", &x, &y)?;
        let (down, up) = ((1.0 - BAR).log10(), (1.0 + BAR).log10());
        let places = (0..=100).map(|i| x.low + (x.high - x.low) * f64::from(i) / 100.0);
        let band: Vec<(f64, f64, f64)> = places.map(|at| (at, at + down, at + up)).collect();
        canvas::band(&mut plot, &band, style::REFERENCE, style::BAND_OPACITY)?;
        for line in [[(x.low, 0.0), (x.high, 0.0)], [(0.0, y.low), (0.0, y.high)]] {
            canvas::line(&mut plot, &line, style::AXIS, 0.75)?;
        }
        canvas::dashes(&mut plot, [(x.low, y.low), (x.high, y.high)], style::AXIS, 1.25)?;
        for (i, (_, points)) in pairs.iter().enumerate() {
            canvas::marks(&mut plot, points, look(i))?;
        }
        Ok(())
    })
}
