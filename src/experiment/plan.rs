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
use crate::train::{Run, RunSpec};

/// What is to be run.
pub struct Plan {
    pub world: World,
    pub methods: Vec<Method>,
    pub size: Size,
    /// The folder of the runs' folders.
    pub runs: PathBuf,
}

/// The finished runs of a plan. Every frame has the columns `task`, `method` and `seed` in front.
pub struct Results {
    runs: Vec<Run>,
}

impl Plan {
    /// One run for every method and seed; all methods of a seed see the same prompts.
    pub fn expand(&self) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for seed in 0..self.size.seeds {
            for method in &self.methods {
                let spec = RunSpec::new(&*self.world.task, method.clone(), seed, self.size.run, &self.world.models)?;
                runs.push(Run::new(&self.runs, spec)?);
            }
        }
        Ok(runs)
    }

    /// The plan as a table: a row a run.
    pub fn frame(&self) -> Result<DataFrame> {
        record::PlanRow::frame(
            &self
                .expand()?
                .iter()
                .map(|run| {
                    Ok(record::PlanRow {
                        run: run.spec.name()?,
                        task: run.spec.task.clone(),
                        method: run.spec.method.name.to_string(),
                        seed: run.spec.seed as i64,
                        steps: run.spec.config.steps as i64,
                        samples: (run.spec.config.steps
                            * (run.spec.config.step.prompts * run.spec.config.step.responses) as u64)
                            as i64,
                        done: run.is_done(),
                    })
                })
                .collect::<Result<Vec<_>>>()?,
        )
    }

    /// Trains every run that is not done yet, one on each core, and reports progress.
    /// What was interrupted goes on from its last checkpoint.
    pub fn train(&self) -> Result<Results> {
        keep_memory();
        let runs = self.expand()?;
        let progress = Progress::new(
            format!("{}: {} runs", self.world.task.name(), runs.len()),
            runs.len() as u64 * self.size.run.steps,
        );
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        in_parallel(workers, runs.iter().collect(), |run: &Run| {
            run.train(&*self.world.task, &self.world.models, &progress)
        })?;
        progress.finish();
        Ok(Results { runs })
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
