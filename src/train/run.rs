//! A whole run: from a spec to a folder of rows and a trained policy.
//!
//! A run that was killed goes on from its checkpoint and ends with the same rows and weights, for
//! every random number is keyed by seed and step. A finished run is not run again.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{StepConfig, Trainer, checkpoint, evaluate};
use crate::method::Method;
use crate::models::LanguageModel;
use crate::progress::Progress;
use crate::record::{EvaluationRow, Kind, RunFolder, SampleRow, StepRow};
use crate::tasks::Task;

/// The algorithm's version: a digest of the sources that decide a run's numbers, made by the build.
pub const ALGORITHM: &str = env!("QSTAR_ALGORITHM");

/// How long a run is and how often it looks up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    pub steps: u64,
    /// Steps between evaluations; there is one before the first step and one after the last.
    pub evaluate_every: u64,
    /// Held-out prompts.
    pub evaluation_prompts: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    pub step: StepConfig,
}

/// All that decides a run's result. Its hash is in the run's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    pub task: String,
    pub method: Method,
    pub seed: u64,
    pub config: RunConfig,
    /// Digests of the weights of π_init and of the target.
    pub initial: String,
    pub target: String,
    pub algorithm: String,
}

impl RunSpec {
    /// The spec of a run of `method` on `task` with these models.
    pub fn new(task: &dyn Task, method: Method, seed: u64, config: RunConfig, models: &Models) -> Result<Self> {
        // A seed's prompts begin at seed · 2^32, those of the embedded models at 20260 · 2^32.
        ensure!(seed < 20_000, "a seed lies below 20000: {seed}");
        Ok(Self {
            task: task.name().to_string(),
            method,
            seed,
            config,
            initial: models.initial.digest()?,
            target: models.target.digest()?,
            algorithm: ALGORITHM.to_string(),
        })
    }

    /// `task-method-sSEED-HASH`.
    pub fn name(&self) -> Result<String> {
        let digest = Sha256::digest(serde_json::to_string(self)?);
        let hash: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{}-{}-s{}-{hash}", self.task, self.method.name, self.seed))
    }
}

/// The models of a run.
pub struct Models {
    /// π_init: where the policy starts, and the reference of its KL.
    pub initial: LanguageModel,
    /// π_t.
    pub target: LanguageModel,
}

/// A run and its folder.
pub struct Run {
    pub spec: RunSpec,
    pub folder: RunFolder,
}

const SPEC: &str = "spec.json";
const DONE: &str = "done.json";

impl Run {
    /// The run's place is `runs/NAME`.
    pub fn new(runs: &Path, spec: RunSpec) -> Result<Self> {
        let folder = RunFolder::new(runs.join(spec.name()?));
        Ok(Self { spec, folder })
    }

    pub fn is_done(&self) -> bool {
        self.folder.file(DONE).exists()
    }

    /// Trains to the end, from the checkpoint if there is one. Does nothing if the run is done.
    /// `progress` advances by one a step.
    ///
    /// # Errors
    /// Another process works on the run; the folder holds another run; a checkpoint is corrupt; a
    /// file cannot be written; a loss is not a number. What was written before stays.
    pub fn train(&self, task: &dyn Task, models: &Models, progress: &Progress) -> Result<()> {
        let name = self.spec.name()?;
        if self.is_done() {
            progress.inc(self.spec.config.steps);
            return Ok(());
        }
        ensure!(self.spec.initial == models.initial.digest()?, "{name}: π_init is not the model of the spec");
        ensure!(self.spec.target == models.target.digest()?, "{name}: the target is not the model of the spec");
        self.folder.create()?;
        let _lock = self.folder.lock()?;
        self.write_spec()?;
        self.finish(task, models, progress).with_context(|| format!("run {name}"))
    }

    fn write_spec(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.spec)? + "\n";
        let path = self.folder.file(SPEC);
        match std::fs::read_to_string(&path) {
            Ok(found) => {
                ensure!(found == text, "{}: belongs to another run; remove the folder to start anew", path.display());
                Ok(())
            }
            Err(_) => self.folder.write_text(SPEC, &text),
        }
    }

    fn finish(&self, task: &dyn Task, models: &Models, progress: &Progress) -> Result<()> {
        let RunSpec { method, seed, config, .. } = &self.spec;
        let reference = models.initial.frozen()?;
        let target = models.target.frozen()?;
        let mut trainer =
            Trainer::new(task, method.clone(), config.step, *seed, &models.initial, &reference, Some(&target))?;
        checkpoint::restore(&self.folder, &mut trainer)?;
        self.folder.remove_parts_after(trainer.step_count())?;
        progress.inc(trainer.step_count());
        let mut pending = Pending::default();
        let look = |trainer: &Trainer, pending: &mut Pending| -> Result<()> {
            let policy = trainer.policy.frozen()?;
            let (step, samples) = (trainer.step_count(), trainer.samples());
            let evaluation = evaluate(task, &policy, &reference, config.evaluation_prompts, *seed, step, samples)?;
            pending.evaluations.push(evaluation.row);
            pending.samples.extend(evaluation.samples);
            Ok(())
        };
        let mut from = trainer.step_count();
        if from == 0 {
            look(&trainer, &mut pending)?;
        }
        while trainer.step_count() < config.steps {
            let step = trainer.step_count();
            // Inside the pool, so that its threads are not woken and waited for at every product.
            let row = rayon::scope(|_| trainer.step()).with_context(|| format!("step {step}"))?;
            pending.steps.push(row);
            progress.inc(1);
            let step = trainer.step_count();
            if step.is_multiple_of(config.evaluate_every) || step == config.steps {
                look(&trainer, &mut pending)?;
            }
            if step.is_multiple_of(config.checkpoint_every) || step == config.steps {
                pending.flush(&self.folder, from, step)?;
                checkpoint::save(&self.folder, &trainer)?;
                from = step;
            }
        }
        let weights = trainer.policy.digest()?;
        self.folder
            .write_text(DONE, &(serde_json::json!({"steps": config.steps, "weights": weights}).to_string() + "\n"))
    }
}

/// Rows that are not yet written.
#[derive(Default)]
struct Pending {
    steps: Vec<StepRow>,
    evaluations: Vec<EvaluationRow>,
    samples: Vec<SampleRow>,
}

impl Pending {
    fn flush(&mut self, folder: &RunFolder, from: u64, to: u64) -> Result<()> {
        folder.write_part(Kind::Steps, from, to, StepRow::frame(&self.steps)?)?;
        if !self.evaluations.is_empty() {
            folder.write_part(Kind::Evaluations, from, to, EvaluationRow::frame(&self.evaluations)?)?;
            folder.write_part(Kind::Samples, from, to, SampleRow::frame(&self.samples)?)?;
        }
        *self = Self::default();
        Ok(())
    }
}
