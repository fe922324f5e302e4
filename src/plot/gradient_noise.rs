//! How noisy the gradients of all methods are at the same parameters.

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use super::axis::Axis;
use super::canvas::Sheet;
use super::columns::Columns;
use super::intervals::{self, Panel, Row};
use super::{Figure, style};

/// tr Cov(g)/‖E g‖² of every method at the same parameters θ, with its interval: a row a method, a panel a θ, on one
/// logarithmic axis.
///
/// A row is one method at one θ. Columns: `at` (text: which θ), `method` (text), `noise`, `low`, `high` (positive numbers
/// without a unit; the ends null where there is no interval). Rows without `noise` are left out.
///
/// # Errors
/// No rows, a missing column or one of another type, a number that is not positive, two rows of one method at one θ.
///
/// ```
/// use polars::df;
///
/// let noise = df!(
///     "at" => ["π_init", "π_init"], "method" => ["reinforce", "qstar"],
///     "noise" => [40.0, 55.0], "low" => [31.0, 40.0], "high" => [52.0, 80.0],
/// )?;
/// assert!(qstar::plot::gradient_noise(&noise)?.svg.contains("π_init"));
/// # anyhow::Ok(())
/// ```
pub fn gradient_noise(noise: &DataFrame) -> Result<Figure> {
    let known = noise.column("noise").context("gradient_noise needs a column `noise`")?.is_not_null();
    let noise = noise.filter(&known)?;
    let columns = Columns::of(&noise, "gradient_noise", "one row a method and θ, with its tr Cov(g)/‖E g‖²")?;
    let panels = intervals::panels(&columns, ["at", "method", "noise"], ["low", "high"], style::method)?;
    let (low, high) = intervals::reach(&panels);
    ensure!(low > 0.0, "`noise`, `low` and `high` must be positive to stand on a logarithmic axis: {low} is not");
    let x = Axis::logarithmic("tr Cov(g)/‖E g‖² (logarithmic)", 0.95 * low, 1.05 * high);
    let sheet = Sheet {
        legend: intervals::legend(&panels, "interval"),
        columns: Sheet::columns_for(panels.len()),
        panel_height: intervals::height(&panels),
        panels: panels.len(),
    };
    let panels: Vec<Panel> = panels.into_iter().map(logarithms).collect();
    sheet.draw(|index, area| intervals::draw(area, &panels[index], &x, None))
}

fn logarithms(panel: Panel) -> Panel {
    let logarithm = |row: Row| Row {
        value: row.value.log10(),
        ends: row.ends.map(|(low, high)| (low.log10(), high.log10())),
        ..row
    };
    Panel { rows: panel.rows.into_iter().map(logarithm).collect(), ..panel }
}
