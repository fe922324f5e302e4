//! Which target suits which family of tasks.

use anyhow::Result;
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::{Entry, Key, Sheet};
use super::columns::Columns;
use super::{Figure, intervals, style};

/// The gain in held-out reward with every target, with its interval: a panel a family, a row a target, all on one axis with a
/// dashed line at no gain.
///
/// A row is one target on one family. Columns: `target`, `family` (text), `gain`, `gain_low`, `gain_high` (numbers, in the unit of the
/// reward; the ends null where there is no interval).
///
/// # Errors
/// No rows, a missing column or one of another type, a value that is not finite, two rows of one target and family.
///
/// ```
/// use polars::df;
///
/// let gains = df!(
///     "target" => ["expert", "conditional"], "family" => ["code", "code"],
///     "gain" => [0.12, 0.03], "gain_low" => [0.08, -0.01], "gain_high" => [0.16, 0.07],
/// )?;
/// assert!(qstar::plot::targets_by_family(&gains)?.svg.contains("conditional"));
/// # anyhow::Ok(())
/// ```
pub fn targets_by_family(gains: &DataFrame) -> Result<Figure> {
    let columns = Columns::of(gains, "targets_by_family", "one row a target and family, with its gain")?;
    let panels = intervals::panels(&columns, ["family", "target", "gain"], ["gain_low", "gain_high"], style::target)?;
    let (low, high) = intervals::reach(&panels);
    let x = Axis::padded("Gain in held-out reward", low.min(0.0), high.max(0.0), 0.06, 4);
    let mut legend = intervals::legend(&panels, "interval");
    legend.push(Entry::new(Key::Dashes(style::REFERENCE), "no gain"));
    let sheet = Sheet {
        legend,
        columns: Sheet::columns_for(panels.len()),
        panel_height: intervals::height(&panels),
        panels: panels.len(),
    };
    sheet.draw(|index, area| intervals::draw(area, &panels[index], &x, Some(0.0)))
}
