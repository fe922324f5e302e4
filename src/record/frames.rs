//! Looking at frames in a notebook's cell with little typing: some rows, means, the last rows of runs.
//!
//! ```
//! use polars::df;
//! use qstar::record::frames;
//!
//! let evaluations = df!(
//!     "method" => ["sft", "sft", "qstar", "qstar"], "seed" => [0i64, 1, 0, 1], "step" => [10i64, 10, 10, 10],
//!     "reward" => [0.2, 0.4, 0.5, 0.7],
//! )?;
//! let qstar = frames::only(&evaluations, "method", "qstar")?;
//! let means = frames::mean_by(&evaluations, &["method"], &["reward"])?;
//! assert_eq!((qstar.height(), means.height()), (2, 2));
//! # anyhow::Ok(())
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use polars::prelude::{AnyValue, BooleanChunked, Column, DataFrame, DataType, IdxCa, NewChunkedArray};

/// What a column is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Value::Integer(number.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Value::Bool(truth)
    }
}

/// The rows whose `column` has this value: a text, a whole number, or true or false.
///
/// # Errors
/// No such column, a value of another type, no such rows: what there is instead is listed.
///
/// ```
/// # let frame = polars::df!("seed" => [0i64, 1, 1])?;
/// assert_eq!(qstar::record::frames::only(&frame, "seed", 1)?.height(), 2);
/// # anyhow::Ok(())
/// ```
pub fn only(frame: &DataFrame, column: &str, value: impl Into<Value>) -> Result<DataFrame> {
    any(frame, column, &[value.into()])
}

/// The rows whose `column` has one of these values.
///
/// # Errors
/// As [`only`], for each of the values.
///
/// ```
/// # let frame = polars::df!("method" => ["sft", "dpo", "qstar"])?;
/// assert_eq!(qstar::record::frames::only_of(&frame, "method", ["sft", "qstar"])?.height(), 2);
/// # anyhow::Ok(())
/// ```
pub fn only_of<V: Into<Value>>(
    frame: &DataFrame,
    column: &str,
    values: impl IntoIterator<Item = V>,
) -> Result<DataFrame> {
    any(frame, column, &values.into_iter().map(Into::into).collect::<Vec<_>>())
}

/// The means of number columns over the rows that agree in the `keys`, in the order of their first rows. The column `rows` counts
/// them; a null is left out of its mean, and a mean of nulls alone is null.
///
/// # Errors
/// No such column, a column in `values` without numbers.
///
/// ```
/// # let frame = polars::df!("method" => ["sft", "sft"], "reward" => [Some(0.2), Some(0.4)])?;
/// let means = qstar::record::frames::mean_by(&frame, &["method"], &["reward"])?;
/// assert!((means.column("reward")?.f64()?.get(0).unwrap() - 0.3).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
pub fn mean_by(frame: &DataFrame, keys: &[&str], values: &[&str]) -> Result<DataFrame> {
    let groups = groups(frame, keys)?;
    let mut columns: Vec<Column> = Vec::new();
    let first = rows(groups.iter().map(|group| group[0]));
    for key in keys {
        columns.push(column(frame, key)?.take(&first)?);
    }
    columns.push(Column::new("rows".into(), groups.iter().map(|group| group.len() as i64).collect::<Vec<_>>()));
    for name in values {
        let numbers = numbers(frame, name)?;
        let mean = |group: &Vec<usize>| {
            let there: Vec<f64> = group.iter().filter_map(|row| numbers[*row]).collect();
            (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
        };
        columns.push(Column::new((*name).into(), groups.iter().map(mean).collect::<Vec<_>>()));
    }
    Ok(DataFrame::new(groups.len(), columns)?)
}

/// Of the rows that agree in the `keys` the one with the greatest `by`: of a run's evaluations, by `step`, the last.
///
/// # Errors
/// No such column, a `by` without numbers or with a null.
///
/// ```
/// # let frame = polars::df!("method" => ["sft", "sft"], "seed" => [0i64, 0], "step" => [0i64, 10])?;
/// let last = qstar::record::frames::last(&frame, &["method", "seed"], "step")?;
/// assert_eq!(last.column("step")?.i64()?.get(0), Some(10));
/// # anyhow::Ok(())
/// ```
pub fn last(frame: &DataFrame, keys: &[&str], by: &str) -> Result<DataFrame> {
    let order: Option<Vec<f64>> = numbers(frame, by)?.into_iter().collect();
    let order = order.with_context(|| format!("column `{by}` has a null: its rows have no last"))?;
    let latest = |group: &Vec<usize>| group.iter().copied().max_by(|a, b| order[*a].total_cmp(&order[*b]));
    let latest = rows(groups(frame, keys)?.iter().filter_map(latest));
    Ok(frame.take(&latest)?)
}

fn any(frame: &DataFrame, name: &str, values: &[Value]) -> Result<DataFrame> {
    let column = column(frame, name)?;
    let found: Vec<AnyValue> = (0..frame.height()).map(|row| column.get(row)).collect::<Result<_, _>>()?;
    let mut kept = vec![false; found.len()];
    for value in values {
        ensure!(
            fits(column.dtype(), value),
            "column `{name}` holds {}, which is never {}",
            column.dtype(),
            shown(value)
        );
        let mut some = false;
        for (kept, found) in kept.iter_mut().zip(&found) {
            let equal = is(found, value);
            *kept |= equal;
            some |= equal;
        }
        if !some {
            let mut known: Vec<String> = Vec::new();
            for value in found.iter().map(text) {
                if !known.contains(&value) {
                    known.push(value);
                }
            }
            let more = if known.len() > 20 { ", …" } else { "" };
            known.truncate(20);
            anyhow::bail!("no row has {} in column `{name}`: there are {}{more}", shown(value), known.join(", "));
        }
    }
    Ok(frame.filter(&BooleanChunked::from_iter_values("kept".into(), kept.into_iter()))?)
}

fn fits(kind: &DataType, value: &Value) -> bool {
    match value {
        Value::Text(_) => *kind == DataType::String,
        Value::Integer(_) => kind.is_integer(),
        Value::Bool(_) => *kind == DataType::Boolean,
    }
}

fn is(found: &AnyValue, value: &Value) -> bool {
    match value {
        Value::Text(text) => found.get_str() == Some(text),
        Value::Integer(number) => found.extract::<i64>() == Some(*number),
        Value::Bool(truth) => matches!(found, AnyValue::Boolean(found) if found == truth),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
    }
}

/// The rows of every combination of keys, in the order of their first rows.
fn groups(frame: &DataFrame, keys: &[&str]) -> Result<Vec<Vec<usize>>> {
    let columns: Vec<&Column> = keys.iter().map(|key| column(frame, key)).collect::<Result<_>>()?;
    let mut places: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for row in 0..frame.height() {
        let values = columns.iter().map(|column| Ok(text(&column.get(row)?)));
        let place = *places.entry(values.collect::<Result<_>>()?).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    Ok(groups)
}

/// Debug notation keeps the text "null" apart from a null.
fn text(value: &AnyValue) -> String {
    value.get_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"))
}

fn numbers(frame: &DataFrame, name: &str) -> Result<Vec<Option<f64>>> {
    let column = column(frame, name)?;
    let nulls = column.null_count() == frame.height();
    ensure!(
        column.dtype().is_primitive_numeric() || nulls,
        "column `{name}` holds {}, and there is no mean or order of that",
        column.dtype()
    );
    Ok(column.cast(&DataType::Float64)?.f64()?.iter().collect())
}

fn column<'a>(frame: &'a DataFrame, name: &str) -> Result<&'a Column> {
    frame.column(name).ok().with_context(|| {
        let names: Vec<_> = frame.get_column_names().iter().map(|name| name.as_str()).collect();
        format!("there is no column `{name}`: the frame has {}", names.join(", "))
    })
}

fn rows(rows: impl Iterator<Item = usize>) -> IdxCa {
    IdxCa::from_vec("row".into(), rows.map(|row| row as polars::prelude::IdxSize).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::df;

    fn frame() -> DataFrame {
        df!(
            "method" => ["sft", "qstar", "sft", "qstar"], "seed" => [0i64, 0, 1, 1], "step" => [10i64, 10, 5, 20],
            "reward" => [Some(0.2), Some(0.5), None, Some(0.7)], "ended" => [true, false, true, true],
        )
        .unwrap()
    }

    fn error(result: Result<DataFrame>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn rows_are_found_by_text_number_and_truth() {
        assert_eq!(only(&frame(), "method", "qstar").unwrap().column("step").unwrap().i64().unwrap().get(1), Some(20));
        assert_eq!(only(&frame(), "seed", 1).unwrap().height(), 2);
        assert_eq!(only(&frame(), "ended", false).unwrap().height(), 1);
        assert_eq!(only_of(&frame(), "method", ["qstar", "sft"]).unwrap(), frame());
    }

    #[test]
    fn what_there_is_not_is_told_with_what_there_is() {
        let told = error(only(&frame(), "method", "dpo"));
        assert!(told.contains("no row has \"dpo\"") && told.contains("\"sft\", \"qstar\""), "{told}");
        assert!(error(only(&frame(), "methods", "sft")).contains("the frame has method, seed"));
        assert!(error(only(&frame(), "method", 3)).contains("never 3"));
        assert!(error(only(&frame(), "seed", "0")).contains("never \"0\""));
        assert!(error(only_of(&frame(), "method", ["sft", "dpo"])).contains("\"dpo\""));
        assert!(error(mean_by(&frame(), &["seed"], &["method"])).contains("no mean"));
        assert!(error(last(&frame(), &["seed"], "reward")).contains("has a null"));
    }

    #[test]
    fn means_leave_nulls_out() {
        let means = mean_by(&frame(), &["method"], &["reward", "step"]).unwrap();
        let of = |name: &str| means.column(name).unwrap().f64().unwrap().to_vec();
        assert_eq!(of("reward"), [Some(0.2), Some(0.6)]);
        assert_eq!(of("step"), [Some(7.5), Some(15.0)]);
        assert_eq!(means.column("rows").unwrap().i64().unwrap().to_vec(), [Some(2), Some(2)]);
        let none = mean_by(&only(&frame(), "step", 5).unwrap(), &["method", "seed"], &["reward"]).unwrap();
        assert_eq!(none.column("reward").unwrap().null_count(), 1);
        assert_eq!(mean_by(&frame(), &[], &["step"]).unwrap().height(), 1);
    }

    #[test]
    fn the_last_rows_are_those_of_the_greatest_step() {
        let last = last(&frame(), &["method"], "step").unwrap();
        assert_eq!(last.column("step").unwrap().i64().unwrap().to_vec(), [Some(10), Some(20)]);
        assert_eq!(last.column("seed").unwrap().i64().unwrap().to_vec(), [Some(0), Some(1)]);
    }
}
