//! How good all runs of a method are after so many samples.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::banded_lines as banded;
use super::canvas::Sheet;
use super::columns::Columns;
use super::crossing::span;
use super::{Figure, style};

/// The interquartile mean of the scores of all runs over samples: a line a method with its interval as a band. Agarwal et
/// al. 2021, arXiv:2108.13264.
///
/// A row is one point. Columns: `method` (text), `samples` (number: responses used so far), `iqm`, `low`, `high` (numbers, in
/// the unit of the scores; the ends null where there is no interval).
///
/// # Errors
/// No rows, a missing column or one of another type, a value that is not finite, two rows of one method after the same
/// samples.
///
/// ```
/// use polars::df;
///
/// let points = df!(
///     "method" => ["qstar", "qstar"], "samples" => [0.0, 512.0], "iqm" => [0.1, 0.4],
///     "low" => [0.05, 0.3], "high" => [0.15, 0.45],
/// )?;
/// let figure = qstar::plot::sample_efficiency(&points)?;
/// assert!(figure.svg.contains("Interquartile mean"));
/// # anyhow::Ok(())
/// ```
pub fn sample_efficiency(points: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(points, "sample_efficiency", "the frame of Curves::efficiency_curves")?;
    let lines = banded::lines(&columns, "samples", "iqm")?;
    let all = || lines.iter().flat_map(|line| &line.points);
    let (first, last) = span(all().map(|point| point.x));
    let ends = all().flat_map(|point| {
        let (low, high) = point.ends.unwrap_or((point.y, point.y));
        [point.y, low, high]
    });
    let (low, high) = span(ends);
    let x = Axis::padded("Samples (responses used)", first, last, 0.02, 6);
    let y = Axis::padded("Interquartile mean of scores", low, high, 0.05, 7);
    let sheet = Sheet { legend: banded::legend(&lines), columns: vec![style::NARROW], panel_height: 290.0, panels: 1 };
    sheet.draw(|_, area| banded::draw(area, "Sample efficiency", &lines, &x, &y))
}
