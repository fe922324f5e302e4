//! The finished runs of a plan, as frames.

use anyhow::{Context, Result, ensure};
use polars::prelude::DataFrame;

use crate::record::{self, Kind, Label};
use crate::train::Run;

/// The finished runs of a plan. Every frame has the columns of a [`Label`] in front: `task`, `parameters`, `target`, `method`,
/// `setting` and `seed`.
pub struct Results {
    runs: Vec<(Label, Run)>,
}

impl Results {
    pub(super) fn new(runs: Vec<(Label, Run)>) -> Self {
        Self { runs }
    }

    /// A row a training step ([`StepRow`](crate::record::StepRow)).
    pub fn steps(&self) -> Result<DataFrame> {
        self.all(Kind::Steps)
    }

    /// A row an evaluation ([`EvaluationRow`](crate::record::EvaluationRow)).
    pub fn evaluations(&self) -> Result<DataFrame> {
        self.all(Kind::Evaluations)
    }

    /// A row a held-out response ([`SampleRow`](crate::record::SampleRow)).
    pub fn samples(&self) -> Result<DataFrame> {
        self.all(Kind::Samples)
    }

    /// The runs of which one column of the label has this value, as text.
    ///
    /// # Errors
    /// A column that a label does not have; no such runs.
    pub fn only(self, column: &str, value: &str) -> Result<Self> {
        let mut kept = Vec::new();
        let mut known: Vec<String> = Vec::new();
        for (label, run) in self.runs {
            let found = label.get(column).with_context(|| {
                format!("the results have no column {column:?} to choose by: there are {}", Label::COLUMNS.join(", "))
            })?;
            if found == value {
                kept.push((label, run));
            } else if !known.contains(&found) {
                known.push(found);
            }
        }
        ensure!(!kept.is_empty(), "no run has {column} {value:?}: there are {}", known.join(", "));
        Ok(Self { runs: kept })
    }

    /// The runs, with their labels.
    pub fn runs(&self) -> &[(Label, Run)] {
        &self.runs
    }

    /// The methods in the order of the plan.
    pub fn methods(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (label, _) in &self.runs {
            if !names.contains(&label.method) {
                names.push(label.method.clone());
            }
        }
        names
    }

    /// The rows of one method, a frame a run.
    pub fn of_method(&self, method: &str, kind: Kind) -> Result<Vec<DataFrame>> {
        self.with(method).map(|run| run.folder.rows(kind)).collect()
    }

    /// Why the runs of one method ended, one a run: `steps`, `budget`, `kl` or `patience`.
    pub fn ends(&self, method: &str) -> Result<Vec<String>> {
        self.with(method).map(Run::ended).collect()
    }

    fn with(&self, method: &str) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |(label, _)| label.method == method).map(|(_, run)| run)
    }

    fn all(&self, kind: Kind) -> Result<DataFrame> {
        let frames: Result<Vec<_>> =
            self.runs.iter().map(|(label, run)| label.before(&run.folder.rows(kind)?)).collect();
        record::stack(frames?).context("the results of a plan")
    }
}
