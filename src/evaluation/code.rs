//! Generated programs that pass their tests, or do not.

use anyhow::{Context, Result, ensure};
use polars::prelude::{Column, DataFrame};

use super::{Options, Scores, SummaryRow};
use crate::metrics;

/// One generated program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Which task it was written for.
    pub task: String,
    /// Whether it passes all tests of the task.
    pub passed: bool,
}

/// pass@k of every k. `documents` has a row a task, in the order in which they first occur: `task_id`, `samples`, `passed` and for
/// example `pass@1`; `summary` the means over tasks, with bootstrap intervals over tasks.
///
/// # Errors
/// No samples, no k, or a task with fewer samples than a k; it is named.
pub fn pass_at_k(samples: &[Sample], k: &[u64], options: &Options) -> Result<Scores> {
    ensure!(!samples.is_empty(), "pass@k of no samples");
    ensure!(!k.is_empty(), "pass@k of no k");
    let mut places = std::collections::HashMap::new();
    let mut tasks: Vec<(&str, u64, u64)> = Vec::new();
    for sample in samples {
        let place = *places.entry(sample.task.as_str()).or_insert(tasks.len());
        if place == tasks.len() {
            tasks.push((&sample.task, 0, 0));
        }
        tasks[place].1 += 1;
        tasks[place].2 += u64::from(sample.passed);
    }
    let estimate = |k: u64| -> Result<Vec<f64>> {
        let of_task = |&(task, n, passed): &(&str, u64, u64)| {
            metrics::pass_at_k(n, passed, k).with_context(|| format!("task {task:?}"))
        };
        tasks.iter().map(of_task).collect()
    };
    let estimates: Vec<Vec<f64>> = k.iter().map(|&k| estimate(k)).collect::<Result<_>>()?;
    let intervals = options.resampling.means(&estimates)?;
    let names: Vec<String> = k.iter().map(|k| format!("pass@{k}")).collect();
    let rows = names.iter().zip(intervals).map(|(name, interval)| SummaryRow::new(name, interval, tasks.len()));
    let summary = SummaryRow::frame(&rows.collect::<Vec<_>>())?;
    let count = |part: fn(&(&str, u64, u64)) -> u64| tasks.iter().map(|task| part(task) as i64).collect::<Vec<_>>();
    let mut columns = vec![
        Column::new("task_id".into(), tasks.iter().map(|task| task.0).collect::<Vec<_>>()),
        Column::new("samples".into(), count(|task| task.1)),
        Column::new("passed".into(), count(|task| task.2)),
    ];
    columns.extend(names.iter().zip(estimates).map(|(name, values)| Column::new(name.as_str().into(), values)));
    Ok(Scores { documents: DataFrame::new(tasks.len(), columns)?, summary })
}
