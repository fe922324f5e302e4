//! All runs of a method as one number, with its interval.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::Sheet;
use super::columns::Columns;
use super::{Figure, intervals, style};

/// Mean, median, interquartile mean and the like of methods' scores with their intervals: one panel an aggregate, a row a
/// method. Agarwal et al. 2021, arXiv:2108.13264.
///
/// A row is one aggregate of one method. Columns: `aggregate`, `method` (text), `value` (number, in the unit of the scores),
/// `low`, `high` (numbers; null where there is no interval).
///
/// # Errors
/// No rows, a missing column or one of another type, a value that is not finite, two rows of one method and aggregate.
///
/// ```
/// use polars::df;
///
/// let aggregates = df!(
///     "aggregate" => ["IQM", "IQM"],
///     "method" => ["reinforce", "qstar"],
///     "value" => [0.41, 0.46],
///     "low" => [0.37, 0.43],
///     "high" => [0.45, 0.48],
/// )?;
/// let figure = qstar::plot::aggregate_intervals(&aggregates)?;
/// assert!(figure.svg.contains("IQM"));
/// # anyhow::Ok(())
/// ```
pub fn aggregate_intervals(aggregates: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(aggregates, "aggregate_intervals", "the frame of Curves::aggregates")?;
    let panels = intervals::panels(&columns, ["aggregate", "method", "value"], ["low", "high"], style::method)?;
    let sheet = Sheet {
        legend: intervals::legend(&panels, intervals::INTERVAL),
        columns: Sheet::columns_for(panels.len()),
        panel_height: intervals::height(&panels),
        panels: panels.len(),
    };
    sheet.draw(|index, area| {
        // An optimality gap has another height than a mean: every panel has its own axis.
        let panel = &panels[index];
        let (low, high) = intervals::reach(std::slice::from_ref(panel));
        intervals::draw(area, panel, &Axis::padded("Score", low, high, 0.06, 4), None)
    })
}
