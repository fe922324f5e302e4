//! A plan: what is to be trained. Expanding it gives runs.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use polars::prelude::DataFrame;

use super::search::{Search, TrialRow, Trials};
use super::{Results, World};
use crate::machine::{in_parallel, keep_memory};
use crate::method::Method;
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::record::{Label, PlanRow};
use crate::train::{Run, RunConfig, RunSpec, Trained};

/// What is to be trained: every arm of every part, with every seed.
pub struct Plan {
    /// What the progress calls it.
    pub name: String,
    pub parts: Vec<Part>,
    /// The folder of the runs' folders.
    pub runs: PathBuf,
    /// The processes that train it together, run by run; alone, a process trains one run on each of its cores.
    pub ranks: Ranks,
}

/// Methods in one world, with one target.
pub struct Part {
    pub world: World,
    /// The target's name in frames.
    pub target: String,
    pub arms: Vec<Arm>,
    /// The seeds 0, 1, ... of every arm; all arms of a seed see the same prompts.
    pub seeds: u64,
    /// Looks for a setting of its own for every arm; the best one is trained with all seeds as well.
    pub search: Option<Search>,
}

/// A method at a setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    pub method: Method,
    /// [`COMMON`], or what else the setting is called in frames.
    pub setting: String,
    pub config: RunConfig,
}

/// The setting that all methods share, and the one that was found for each.
pub const COMMON: &str = "common";
pub const TUNED: &str = "tuned";

/// One run of a plan: the number of its place in [`Plan::jobs`] is its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Arm { part: usize, arm: usize, seed: u64 },
    Trial { part: usize, arm: usize, trial: usize },
    Tuned { part: usize, arm: usize, seed: u64 },
}

impl Arm {
    pub fn common(method: Method, config: RunConfig) -> Self {
        Self { method, setting: COMMON.to_string(), config }
    }
}

impl Part {
    /// Methods at the common setting.
    pub fn new(world: World, methods: &[Method], config: RunConfig, seeds: u64) -> Self {
        let arms = methods.iter().map(|method| Arm::common(method.clone(), config)).collect();
        Self { world, target: "expert".to_string(), arms, seeds, search: None }
    }

    pub(super) fn the_search(&self) -> &Search {
        self.search.as_ref().expect("only a part with a search has trials")
    }
}

impl Plan {
    /// All that there is to do, in this order: the arms, seed by seed; the trials; the tuned arms, which need them.
    pub fn jobs(&self) -> Vec<Job> {
        let mut jobs = Vec::new();
        let parts = || self.parts.iter().enumerate();
        let most = parts().map(|(_, p)| p.seeds).max().unwrap_or(0);
        for seed in 0..most {
            for (part, p) in parts().filter(|(_, p)| seed < p.seeds) {
                jobs.extend((0..p.arms.len()).map(|arm| Job::Arm { part, arm, seed }));
            }
        }
        for (part, p) in parts() {
            let trials = p.search.as_ref().map_or(0, |search| search.trials);
            for arm in 0..p.arms.len() {
                jobs.extend((0..trials).map(|trial| Job::Trial { part, arm, trial }));
            }
        }
        for seed in 0..most {
            for (part, p) in parts().filter(|(_, p)| p.search.is_some() && seed < p.seeds) {
                jobs.extend((0..p.arms.len()).map(|arm| Job::Tuned { part, arm, seed }));
            }
        }
        jobs
    }

    /// The plan as a table: a row a run. Of a tuned arm whose trials are not done neither name nor setting is known.
    pub fn frame(&self) -> Result<DataFrame> {
        PlanRow::frame(&self.rows()?)
    }

    pub(super) fn rows(&self) -> Result<Vec<PlanRow>> {
        let row = |(id, job): (usize, Job)| -> Result<PlanRow> {
            let found = self.labelled(job)?;
            let (label, config) = self.asked(job);
            let (done, steps_done) = match &found {
                Some((_, run)) => (run.is_done(), run.steps_done()?),
                None => (false, 0),
            };
            let at_work = match &found {
                Some((_, run)) if !done => run.folder.is_locked()?,
                _ => false,
            };
            Ok(PlanRow {
                id: id as i64,
                run: found.map(|(_, run)| run.spec.name()).transpose()?,
                task: label.task,
                parameters: label.parameters,
                target: label.target,
                method: label.method,
                setting: label.setting,
                seed: label.seed,
                steps: config.steps as i64,
                samples: (config.steps * config.step.samples(&self.arm(job).method) as u64) as i64,
                budget: config.budget.map(|budget| budget.to_string()),
                steps_done: steps_done as i64,
                at_work,
                done,
            })
        };
        self.jobs().into_iter().enumerate().map(row).collect()
    }

    /// Trains every run that is not done yet, one on each core, and reports progress. What was interrupted goes on from its
    /// last checkpoint. Other processes may train the same plan: each run is done by one of them, and the runs of one that
    /// dies are taken over by the others.
    ///
    /// # Errors
    /// What ends a run, with its name; the others keep what they have written.
    pub fn train(&self) -> Result<Results> {
        let (arms, tuned): (Vec<Job>, Vec<Job>) = self
            .jobs()
            .into_iter()
            .filter(|job| !matches!(job, Job::Trial { .. }))
            .partition(|job| matches!(job, Job::Arm { .. }));
        let mut runs = self.train_all(&arms, &self.name)?;
        self.search()?;
        runs.extend(self.train_all(&tuned, &format!("{}, tuned", self.name))?);
        Ok(Results::new(runs))
    }

    /// The runs that are done, without the trials; nothing is trained.
    ///
    /// # Errors
    /// A run's folder that cannot be read.
    pub fn finished(&self) -> Result<Results> {
        let mut done = Vec::new();
        for job in self.jobs().into_iter().filter(|job| !matches!(job, Job::Trial { .. })) {
            done.extend(self.labelled(job)?.filter(|(_, run)| run.is_done()));
        }
        Ok(Results::new(done))
    }

    /// The trials of every part that has a search, trained where they are not done: a row a trial.
    ///
    /// # Errors
    /// No trials, a range that is none; a method of which no trial came to its end; what cannot be written.
    pub fn search(&self) -> Result<DataFrame> {
        let mut rows = Vec::new();
        for part in self.parts.iter().filter(|part| part.search.is_some()) {
            rows.extend(Trials::of(self, part, 0..part.arms.len())?.rows()?);
        }
        TrialRow::frame(&rows)
    }

    /// Trains one run, on all cores; for a tuned arm first those of its trials that are not done. Waits for what other
    /// processes are doing.
    ///
    /// # Errors
    /// A number beyond the last run; what ends the run.
    pub fn train_one(&self, id: usize) -> Result<()> {
        let jobs = self.jobs();
        let Some(job) = jobs.get(id).copied() else {
            bail!("{} has the runs 0 to {}: there is no run {id}", self.name, jobs.len() as i64 - 1);
        };
        let (part, arm) = job.place();
        let part = &self.parts[part];
        match job {
            // How a trial ends is the search's business, and an error is one way.
            Job::Trial { trial, .. } => return Trials::train_one(self, part, arm, trial),
            Job::Tuned { .. } => drop(Trials::of(self, part, arm..arm + 1)?.rows()?),
            Job::Arm { .. } => {}
        }
        let (_, run) = self.labelled(job)?.expect("the trials are done");
        let progress = Progress::new(run.spec.name()?, run.spec.config.steps);
        while let Trained::Elsewhere = run.try_train(&*part.world.task, &part.world.models, &progress)? {
            std::thread::sleep(WAIT);
        }
        progress.finish();
        Ok(())
    }

    fn arm(&self, job: Job) -> &Arm {
        let (part, arm) = job.place();
        &self.parts[part].arms[arm]
    }

    /// A job's label, and its configuration as far as it is known before its trials.
    fn asked(&self, job: Job) -> (Label, RunConfig) {
        let (part, arm) = (&self.parts[job.place().0], self.arm(job));
        let (setting, seed, steps) = match job {
            Job::Arm { seed, .. } => (arm.setting.clone(), seed, arm.config.steps),
            Job::Tuned { seed, .. } => (TUNED.to_string(), seed, arm.config.steps),
            Job::Trial { trial, .. } => {
                let search = part.the_search();
                (format!("trial-{trial}"), search.seed, search.steps)
            }
        };
        let label = Label {
            task: part.world.task.name().to_string(),
            parameters: part.world.models.initial.params.count() as i64,
            target: part.target.clone(),
            method: arm.method.name.to_string(),
            setting,
            seed: seed as i64,
        };
        (label, RunConfig { steps, ..arm.config })
    }

    /// The run of a job; none for a tuned arm whose trials are not all done.
    fn labelled(&self, job: Job) -> Result<Option<(Label, Run)>> {
        let (part, at) = job.place();
        let (part, arm) = (&self.parts[part], &self.parts[part].arms[at]);
        let (label, config) = self.asked(job);
        let run = match job {
            Job::Arm { seed, .. } => self.run(part, arm.method.clone(), config, seed)?,
            Job::Trial { trial, .. } => {
                let search = part.the_search();
                let (method, config) = search.trial(arm, trial);
                self.run(part, method, config, search.seed)?
            }
            Job::Tuned { seed, .. } => match Trials::best_if_done(self, part, at)? {
                Some((method, step)) => self.run(part, method, RunConfig { step, ..config }, seed)?,
                None => return Ok(None),
            },
        };
        Ok(Some((label, run)))
    }

    pub(super) fn run(&self, part: &Part, method: Method, config: RunConfig, seed: u64) -> Result<Run> {
        let spec = RunSpec::new(&*part.world.task, method, seed, config, &part.world.models)?;
        Ok(Run::new(&self.runs, spec)?.over(&self.ranks))
    }

    fn train_all(&self, jobs: &[Job], what: &str) -> Result<Vec<(Label, Run)>> {
        let known = |job: &Job| Ok(self.labelled(*job)?.expect("the trials are done"));
        let runs: Vec<(Label, Run)> = jobs.iter().map(known).collect::<Result<_>>()?;
        let placed: Vec<(&Part, &Run)> =
            jobs.iter().zip(&runs).map(|(job, (_, run))| (&self.parts[job.place().0], run)).collect();
        self.over_runs(&placed, what, |part, run, progress| {
            run.try_train(&*part.world.task, &part.world.models, progress)
        })?;
        Ok(runs)
    }

    /// Works on every run, one on each core (or one after the other with all ranks), with progress over all steps. Runs that
    /// other processes hold are looked at again until they are done, or free because their process has died.
    pub(super) fn over_runs(
        &self,
        runs: &[(&Part, &Run)],
        what: &str,
        train: impl Fn(&Part, &Run, &Progress) -> Result<Trained> + Sync,
    ) -> Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        keep_memory();
        let steps = runs.iter().map(|(_, run)| run.spec.config.steps).sum();
        let progress = Progress::new(format!("{what}: {} runs", runs.len()), steps);
        let mut left: Vec<(&Part, &Run)> = runs.to_vec();
        let mut told = false;
        loop {
            let outcomes = match self.ranks.size() {
                1 => {
                    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
                    in_parallel(workers, left.clone(), |(part, run)| train(part, run, &progress))?
                }
                _ => left.iter().map(|(part, run)| train(part, run, &progress)).collect::<Result<_>>()?,
            };
            left = left
                .into_iter()
                .zip(outcomes)
                .filter(|(_, done)| *done == Trained::Elsewhere)
                .map(|(r, _)| r)
                .collect();
            if left.is_empty() {
                break;
            }
            if !told {
                told = true;
                println!("{what}: waiting for {} runs that other processes are doing", left.len());
            }
            std::thread::sleep(WAIT);
        }
        progress.finish();
        Ok(())
    }
}

impl Job {
    /// The places of its part and of its arm.
    fn place(self) -> (usize, usize) {
        match self {
            Job::Arm { part, arm, .. } | Job::Trial { part, arm, .. } | Job::Tuned { part, arm, .. } => (part, arm),
        }
    }
}

/// How long to wait before looking again whether another process has done a run.
const WAIT: Duration = Duration::from_millis(500);
