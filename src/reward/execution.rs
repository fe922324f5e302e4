//! Execution as reward: what became of generated programs.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};

use crate::progress::Progress;
use crate::record::record;
use crate::sandbox::{Program, Sandbox};

/// A generated program and the task that it was generated for.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub task: String,
    pub program: Program,
}

record! {
    /// One execution.
    pub struct ExecutionRow {
        pub task: String,
        /// The how-manieth of its task, from 0.
        pub completion: i64,
        pub passed: bool,
        /// See [`crate::sandbox::Verdict::name`].
        pub verdict: String,
        /// Why. May hold text of the program.
        pub message: String,
        pub seconds: f64,
        /// In bytes, where it was seen.
        pub peak_memory: Option<f64>,
    }
}

/// Runs programs on `threads` threads: one row each, in their order.
///
/// # Errors
/// Those of [`Sandbox::run_all`].
pub fn execute(
    sandbox: &Sandbox,
    completions: &[Completion],
    threads: usize,
    progress: Option<&Progress>,
) -> Result<Vec<ExecutionRow>> {
    let programs: Vec<Program> = completions.iter().map(|completion| completion.program.clone()).collect();
    let outcomes = sandbox.run_all(&programs, threads, progress)?;
    let mut numbers: HashMap<&str, i64> = HashMap::new();
    let rows = completions.iter().zip(outcomes).map(|(completion, outcome)| {
        let number = numbers.entry(&completion.task).or_insert(0);
        *number += 1;
        ExecutionRow {
            task: completion.task.clone(),
            completion: *number - 1,
            passed: outcome.passed(),
            verdict: outcome.verdict.name().to_string(),
            message: outcome.message,
            seconds: outcome.seconds,
            peak_memory: outcome.peak_memory.map(|bytes| bytes as f64),
        }
    });
    Ok(rows.collect())
}

/// The share of a task's programs that passed, as a mean over tasks: pass@1.
///
/// # Errors
/// No rows.
pub fn execution_accuracy(rows: &[ExecutionRow]) -> Result<f64> {
    ensure!(!rows.is_empty(), "there is no execution to be counted");
    let mut tasks: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for row in rows {
        let (passed, all) = tasks.entry(&row.task).or_default();
        *passed += f64::from(u8::from(row.passed));
        *all += 1.0;
    }
    Ok(tasks.values().map(|(passed, all)| passed / all).sum::<f64>() / tasks.len() as f64)
}
