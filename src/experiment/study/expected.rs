//! What the study expects of its own Table 1, before any run.

use anyhow::{Context, Result};
use polars::prelude::{Column, DataFrame};

use super::frames::texts;
use crate::record::record;

record! {
    /// An expectation, not a measurement.
    pub struct ExpectedRow {
        pub method: String,
        /// Share of responses better than those of `sft`, of 1.
        pub expected_win_rate: f64,
        /// Sample efficiency relative to `on_policy`.
        pub expected_efficiency: f64,
        /// Of 3.
        pub expected_stability: f64,
        /// Null where the study expects none.
        pub expected_ess_ratio: Option<String>,
    }
}

/// The study's expectations: (method, win rate, efficiency, stability, ESS ratio).
const EXPECTED: [(&str, f64, f64, f64, Option<&str>); 7] = [
    ("on_policy", 0.60, 1.0, 3.0, None),
    ("off_policy", 0.55, 0.8, 1.0, Some("< 0.1")),
    ("sft", 0.50, 0.7, 2.0, None),
    ("dpo", 0.65, 1.2, 3.0, None),
    ("uniform", 0.62, 1.1, 2.0, Some("0.5")),
    ("entropy", 0.63, 1.15, 2.0, Some("0.7")),
    ("qstar", 0.68, 1.3, 3.0, Some("1.0")),
];

fn rows() -> Vec<ExpectedRow> {
    let row = |(method, win_rate, efficiency, stability, ess_ratio): (&str, f64, f64, f64, Option<&str>)| ExpectedRow {
        method: method.to_owned(),
        expected_win_rate: win_rate,
        expected_efficiency: efficiency,
        expected_stability: stability,
        expected_ess_ratio: ess_ratio.map(str::to_owned),
    };
    EXPECTED.map(row).to_vec()
}

/// What the study expects of seven methods, a row each: expectations, in columns that say so.
pub fn expected_table() -> Result<DataFrame> {
    ExpectedRow::frame(&rows())
}

/// A frame with a column `method`, as [`main_table`](super::main_table) gives it, with the study's expectations beside it;
/// null for methods of which it expects nothing.
///
/// # Errors
/// A frame without that column.
///
/// ```
/// use polars::df;
/// use qstar::experiment::study::beside_expected;
///
/// let table = beside_expected(&df!("method" => ["qstar", "grpo"], "win_rate" => [0.5, 0.6])?)?;
/// assert_eq!(table.column("expected_win_rate")?.f64()?.get(0), Some(0.68));
/// assert_eq!(table.column("expected_win_rate")?.f64()?.get(1), None);
/// # anyhow::Ok(())
/// ```
pub fn beside_expected(table: &DataFrame) -> Result<DataFrame> {
    let methods = texts(table, "method").context("expectations go beside a table of methods")?;
    let rows = rows();
    let found: Vec<Option<&ExpectedRow>> =
        methods.iter().map(|method| rows.iter().find(|row| row.method == *method)).collect();
    let numbers = |name: &str, of: &dyn Fn(&ExpectedRow) -> f64| {
        Column::new(name.into(), found.iter().map(|row| row.map(of)).collect::<Vec<Option<f64>>>())
    };
    let ratios: Vec<Option<String>> =
        found.iter().map(|row| row.and_then(|row| row.expected_ess_ratio.clone())).collect();
    Ok(table.hstack(&[
        numbers("expected_win_rate", &|row| row.expected_win_rate),
        numbers("expected_efficiency", &|row| row.expected_efficiency),
        numbers("expected_stability", &|row| row.expected_stability),
        Column::new("expected_ess_ratio".into(), ratios),
    ])?)
}
