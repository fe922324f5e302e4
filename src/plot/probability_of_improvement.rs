//! Is a run of one method better than a run of another?

use anyhow::{Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{Entry, Key, Sheet};
use super::columns::Columns;
use super::{Figure, intervals, style};

/// How probable it is that a run of one method scores above a run of another, with its interval: one panel a method, a row
/// for each other one; at 1/2 neither is better. Agarwal et al. 2021, arXiv:2108.13264.
///
/// A row is one pair. Columns: `method`, `other` (text), `probability`, `low`, `high` (numbers in \[0, 1\]; the ends null
/// where there is no interval).
///
/// # Errors
/// No rows, a missing column or one of another type, a value outside \[0, 1\], two rows of one pair.
///
/// ```
/// use polars::df;
///
/// let pairs = df!(
///     "method" => ["qstar"], "other" => ["reinforce"], "probability" => [0.7], "low" => [0.55], "high" => [0.83],
/// )?;
/// let figure = qstar::plot::probability_of_improvement(&pairs)?;
/// assert!(figure.svg.contains("P(qstar &gt; other)"));
/// # anyhow::Ok(())
/// ```
pub fn probability_of_improvement(pairs: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(pairs, "probability_of_improvement", "the frame of Curves::improvements")?;
    let mut panels = intervals::panels(&columns, ["method", "other", "probability"], ["low", "high"], style::method)?;
    for row in panels.iter().flat_map(|panel| &panel.rows) {
        let (low, high) = row.ends.unwrap_or((row.value, row.value));
        for share in [row.value, low, high] {
            ensure!((0.0..=1.0).contains(&share), "probabilities lie in [0, 1]: {share} does not");
        }
    }
    for panel in &mut panels {
        panel.title = format!("P({} > other)", panel.title);
    }
    let x = Axis::shares("Probability of improvement");
    let mut legend = intervals::legend(&panels, intervals::INTERVAL);
    legend.push(Entry::new(Key::Dashes(style::REFERENCE), "neither is better"));
    let sheet = Sheet {
        legend,
        columns: Sheet::columns_for(panels.len()),
        panel_height: intervals::height(&panels),
        panels: panels.len(),
    };
    sheet.draw(|index, area| intervals::draw(area, &panels[index], &x, Some(0.5)))
}
