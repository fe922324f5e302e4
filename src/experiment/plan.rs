//! A plan: one world, some methods, some seeds. Expanding it gives runs.

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::{Context, Result};
use polars::prelude::DataFrame;

use super::World;
use super::preset::Size;
use crate::machine::{in_parallel, keep_memory};
use crate::method::Method;
use crate::progress::Progress;
use crate::record::{self, Kind};
use crate::train::{Run, RunConfig, RunSpec, StepConfig};

/// What is to be run.
pub struct Plan {
    pub world: World,
    /// At the setting of `size`, which all share.
    pub methods: Vec<Method>,
    /// At settings of their own: what a [`Search`](super::Search) has found.
    pub tuned: Vec<Tuned>,
    pub size: Size,
    /// The folder of the runs' folders.
    pub runs: PathBuf,
}

/// A method with a setting of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// Under another name than at the common setting.
    pub method: Method,
    pub step: StepConfig,
}

/// The finished runs of a plan. Every frame has the columns `task`, `method` and `seed` in front.
pub struct Results {
    runs: Vec<Run>,
}

impl Plan {
    /// One run for every method and seed; all methods of a seed see the same prompts.
    pub fn expand(&self) -> Result<Vec<Run>> {
        let common = self.methods.iter().map(|method| (method, self.size.run.step));
        let arms: Vec<_> = common.chain(self.tuned.iter().map(|tuned| (&tuned.method, tuned.step))).collect();
        let mut runs = Vec::new();
        for seed in 0..self.size.seeds {
            for (method, step) in &arms {
                let config = RunConfig { step: *step, ..self.size.run };
                runs.push(self.run((*method).clone(), config, seed)?);
            }
        }
        Ok(runs)
    }

    pub(super) fn run(&self, method: Method, config: RunConfig, seed: u64) -> Result<Run> {
        let spec = RunSpec::new(&*self.world.task, method, seed, config, &self.world.models)?;
        Run::new(&self.runs, spec)
    }

    /// The plan as a table: a row a run.
    pub fn frame(&self) -> Result<DataFrame> {
        record::PlanRow::frame(
            &self
                .expand()?
                .iter()
                .map(|run| {
                    let RunConfig { steps, step, budget, .. } = run.spec.config;
                    let samples = steps * step.samples(&run.spec.method) as u64;
                    Ok(record::PlanRow {
                        run: run.spec.name()?,
                        task: run.spec.task.clone(),
                        method: run.spec.method.name.to_string(),
                        seed: run.spec.seed as i64,
                        steps: steps as i64,
                        samples: samples as i64,
                        budget: budget.map(|budget| budget.to_string()),
                        done: run.is_done(),
                    })
                })
                .collect::<Result<Vec<_>>>()?,
        )
    }

    /// Trains every run that is not done yet, one on each core, and reports progress.
    /// What was interrupted goes on from its last checkpoint.
    pub fn train(&self) -> Result<Results> {
        let runs = self.expand()?;
        self.over_runs(&runs, "runs", |run, progress| run.train(&*self.world.task, &self.world.models, progress))?;
        Ok(Results { runs })
    }
}

impl Plan {
    /// Work on every run, one on each core, with progress over all steps.
    pub(super) fn over_runs<R: Send>(
        &self,
        runs: &[Run],
        what: &str,
        train: impl Fn(&Run, &Progress) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        keep_memory();
        let steps = runs.iter().map(|run| run.spec.config.steps).sum();
        let progress = Progress::new(format!("{}: {} {what}", self.world.task.name(), runs.len()), steps);
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        let done = in_parallel(workers, runs.iter().collect(), |run: &Run| train(run, &progress))?;
        progress.finish();
        Ok(done)
    }
}

impl Results {
    pub fn steps(&self) -> Result<DataFrame> {
        self.all(Kind::Steps)
    }

    pub fn evaluations(&self) -> Result<DataFrame> {
        self.all(Kind::Evaluations)
    }

    pub fn samples(&self) -> Result<DataFrame> {
        self.all(Kind::Samples)
    }

    /// The methods in the order of the plan.
    pub fn methods(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for run in &self.runs {
            if !names.iter().any(|name| *name == run.spec.method.name) {
                names.push(run.spec.method.name.to_string());
            }
        }
        names
    }

    /// The rows of one method, a frame a seed.
    pub fn of_method(&self, method: &str, kind: Kind) -> Result<Vec<DataFrame>> {
        self.runs.iter().filter(|run| run.spec.method.name == method).map(|run| run.folder.rows(kind)).collect()
    }

    /// Why the runs of one method ended, one a seed: `steps`, `budget`, `kl` or `patience`.
    pub fn ends(&self, method: &str) -> Result<Vec<String>> {
        self.runs.iter().filter(|run| run.spec.method.name == method).map(Run::ended).collect()
    }

    fn all(&self, kind: Kind) -> Result<DataFrame> {
        let frames: Result<Vec<_>> = self
            .runs
            .iter()
            .map(|run| {
                let rows = run.folder.rows(kind)?;
                let texts = [("task", run.spec.task.as_str()), ("method", &*run.spec.method.name)];
                record::with_labels(&rows, &texts, &[("seed", run.spec.seed as i64)])
            })
            .collect();
        record::stack(frames?).context("the results of a plan")
    }
}
