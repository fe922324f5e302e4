//! Two runs side by side.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use polars::prelude::{Column, DataFrame, DataType};
use serde_json::Value;

use super::store::{Kind, RunFolder};
use crate::display::{Html, Show, frame_html, in_notebook};

/// In what two runs differ, and what came of it.
#[derive(Debug, Clone)]
pub struct Compared {
    /// A row an entry of `spec.json` that the runs do not share: `entry`, `a`, `b` (text; null where a run has no such entry).
    pub spec: DataFrame,
    /// A row a measure of the last evaluation: `measure` (text), `a`, `b`, `difference` (b less a; numbers in the units of
    /// [`EvaluationRow`](super::EvaluationRow)).
    pub last: DataFrame,
}

/// Compares the specification of two runs and their last evaluations.
///
/// # Errors
/// A `spec.json` that cannot be read, a run without an evaluation; the file is named.
///
/// ```no_run
/// use qstar::display::Show;
/// use qstar::record::{RunFolder, compare};
///
/// let [a, b] = ["data/runs/micro-qstar-s0-0cf2bcc0e380", "data/runs/micro-sft-s0-4e2d980430df"].map(RunFolder::new);
/// compare(&a, &b)?.show();
/// # anyhow::Ok(())
/// ```
pub fn compare(a: &RunFolder, b: &RunFolder) -> Result<Compared> {
    Ok(Compared { spec: differences(&entries(a)?, &entries(b)?)?, last: last(a, b)? })
}

impl Show for Compared {
    fn show(&self) {
        if in_notebook() {
            let (spec, last) = (frame_html(&self.spec), frame_html(&self.last));
            Html(format!("<h4>What differs</h4>{spec}<h4>The last evaluations</h4>{last}")).show();
        } else {
            println!("{}\n{}", self.spec, self.last);
        }
    }
}

/// All values of a run's specification by their paths.
fn entries(run: &RunFolder) -> Result<BTreeMap<String, String>> {
    let path = run.file("spec.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let spec: Value = serde_json::from_str(&text).with_context(|| format!("{}: not valid JSON", path.display()))?;
    let mut entries = BTreeMap::new();
    collect("", &spec, &mut entries);
    Ok(entries)
}

fn collect(path: &str, value: &Value, entries: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(&path, value, entries);
            }
        }
        Value::String(text) => {
            entries.insert(path.to_owned(), text.clone());
        }
        other => {
            entries.insert(path.to_owned(), other.to_string());
        }
    }
}

fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Result<DataFrame> {
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| a.get(*name) != b.get(*name));
    let of = |side: &BTreeMap<String, String>| names.iter().map(|name| side.get(*name).cloned()).collect::<Vec<_>>();
    let columns = vec![
        Column::new("entry".into(), names.iter().map(|name| name.to_string()).collect::<Vec<_>>()),
        Column::new("a".into(), of(a)),
        Column::new("b".into(), of(b)),
    ];
    Ok(DataFrame::new(names.len(), columns)?)
}

fn last(a: &RunFolder, b: &RunFolder) -> Result<DataFrame> {
    let (a, b) = (a.rows(Kind::Evaluations)?, b.rows(Kind::Evaluations)?);
    let value = |frame: &DataFrame, name: &str| -> Result<Option<f64>> {
        let Ok(column) = frame.column(name) else { return Ok(None) };
        Ok(column.cast(&DataType::Float64)?.f64()?.last())
    };
    let (mut names, mut of_a, mut of_b, mut differences) = (vec![], vec![], vec![], vec![]);
    for column in a.columns().iter().filter(|column| column.dtype().is_primitive_numeric()) {
        let (x, y) = (value(&a, column.name())?, value(&b, column.name())?);
        names.push(column.name().to_string());
        of_a.push(x);
        of_b.push(y);
        differences.push(x.zip(y).map(|(x, y)| y - x));
    }
    let columns = vec![
        Column::new("measure".into(), &names),
        Column::new("a".into(), of_a),
        Column::new("b".into(), of_b),
        Column::new("difference".into(), differences),
    ];
    Ok(DataFrame::new(names.len(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::df;

    fn run(folder: &std::path::Path, name: &str, spec: &str, reward: f64) -> RunFolder {
        let run = RunFolder::new(folder.join(name));
        run.create().unwrap();
        run.write_text("spec.json", spec).unwrap();
        let rows = df!("step" => [0i64, 10], "reward" => [0.1, reward]).unwrap();
        run.write_part(Kind::Evaluations, 0, 10, rows).unwrap();
        run
    }

    #[test]
    fn differences_and_last_evaluations_stand_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let a = run(folder.path(), "a", r#"{"task": "micro", "seed": 0, "method": {"name": "sft"}}"#, 0.5);
        let b = run(folder.path(), "b", r#"{"task": "micro", "seed": 1, "method": {"name": "sft", "k": {}}}"#, 0.75);
        let compared = compare(&a, &b).unwrap();
        let text = |name: &str| compared.spec.column(name).unwrap().str().unwrap().iter().collect::<Vec<_>>();
        assert_eq!(text("entry"), [Some("method.k"), Some("seed")]);
        assert_eq!((text("a"), text("b")), (vec![None, Some("0")], vec![Some("{}"), Some("1")]));
        let number = |name: &str| compared.last.column(name).unwrap().f64().unwrap().to_vec();
        assert_eq!(number("difference"), [Some(0.0), Some(0.25)]);
        let told = compare(&a, &RunFolder::new(folder.path().join("none"))).unwrap_err();
        assert!(format!("{told:#}").contains("none/spec.json: cannot be read"), "{told:#}");
    }
}
