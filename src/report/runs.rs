//! Where numbers come from: seeds and hashes of runs.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::record::{RunFolder, record};

record! {
    /// What a run was asked for, and what it ended with.
    pub struct RunRow {
        /// Experiments that it is part of.
        pub experiments: String,
        /// Name of its folder: task, method, seed and a hash of all that decides its result.
        pub run: String,
        /// Task that it trains on.
        pub task: String,
        /// Method that it trains.
        pub method: String,
        /// Seed of its random numbers.
        pub seed: i64,
        /// Steps that it has made; null while it is not finished.
        pub steps: Option<f64>,
        /// Why it ended; null while it is not finished.
        pub end: Option<String>,
        /// Digest of π_init.
        pub initial: Option<String>,
        /// Digest of the target.
        pub target: Option<String>,
        /// Digest of the code that decides its numbers.
        pub algorithm: Option<String>,
        /// Digest of the trained weights.
        pub weights: Option<String>,
    }
}

impl RunRow {
    /// # Errors
    /// A `spec.json` that is missing or cannot be read, or that names no task, method or seed; a `done.json` that cannot be read.
    pub(super) fn read(folder: &Path, experiments: &str, name: &str) -> Result<Self> {
        let run = RunFolder::new(folder.join(name));
        let (spec, done) = (read(&run, "spec.json")?, run.file("done.json"));
        let done = if done.exists() { read(&run, "done.json")? } else { Value::Null };
        let needed = |value: Option<&str>, field: &str| {
            value
                .map(str::to_owned)
                .with_context(|| format!("{}: it names no {field}", run.file("spec.json").display()))
        };
        let text = |value: &Value, field: &str| value[field].as_str().map(str::to_owned);
        Ok(Self {
            experiments: experiments.to_owned(),
            run: name.to_owned(),
            task: needed(spec["task"].as_str(), "task")?,
            method: needed(spec["method"]["name"].as_str(), "method")?,
            seed: spec["seed"]
                .as_i64()
                .with_context(|| format!("{}: it names no seed", run.file("spec.json").display()))?,
            steps: done["steps"].as_f64(),
            end: text(&done, "end"),
            initial: text(&spec, "initial"),
            target: text(&spec, "target"),
            algorithm: text(&spec, "algorithm"),
            weights: text(&done, "weights"),
        })
    }
}

fn read(run: &RunFolder, file: &str) -> Result<Value> {
    let path = run.file(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not valid JSON", path.display()))
}
