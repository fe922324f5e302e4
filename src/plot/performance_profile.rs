//! Which share of a method's runs is better than a score, for every score.

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::banded_lines as banded;
use super::canvas::Sheet;
use super::columns::Columns;
use super::crossing::span;
use super::{Figure, style};

/// The share of runs that score above a threshold, over the threshold: a line a method with its interval as a band. A line
/// that lies above another everywhere is better everywhere; where lines cross, it depends on the score that is asked for.
/// Dolan, Moré 2002 (Math. Program. 91, 201-213); Agarwal et al. 2021, arXiv:2108.13264.
///
/// A row is one point. Columns: `method` (text), `threshold` (number, in the unit of the scores), `share`, `low`, `high`
/// (numbers in \[0, 1\]; the ends null where there is no interval).
///
/// # Errors
/// No rows, a missing column or one of another type, a share outside \[0, 1\], two rows of one method and threshold.
///
/// ```
/// use polars::df;
///
/// let points = df!(
///     "method" => ["qstar", "qstar"], "threshold" => [0.0, 0.5], "share" => [1.0, 0.4],
///     "low" => [1.0, 0.2], "high" => [1.0, 0.6],
/// )?;
/// let figure = qstar::plot::performance_profile(&points)?;
/// assert!(figure.svg.contains("Share of runs"));
/// # anyhow::Ok(())
/// ```
pub fn performance_profile(points: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(points, "performance_profile", "the frame of Curves::profiles")?;
    let lines = banded::lines(&columns, "threshold", "share")?;
    for point in lines.iter().flat_map(|line| &line.points) {
        let (low, high) = point.ends.unwrap_or((point.y, point.y));
        for share in [point.y, low, high] {
            ensure!((0.0..=1.0).contains(&share), "shares lie in [0, 1]: {share} does not");
        }
    }
    let (first, last) = span(lines.iter().flat_map(|line| &line.points).map(|point| point.x));
    let x = Axis::padded("Score τ", first, last, 0.02, 6);
    let y = Axis::shares("Share of runs above τ");
    let sheet = Sheet { legend: banded::legend(&lines), columns: vec![style::NARROW], panel_height: 290.0, panels: 1 };
    sheet.draw(|_, area| banded::draw(area, "Performance profile", &lines, &x, &y))
}
