//! A whole run: from a spec to a folder of rows and a trained policy.
//!
//! A run that was killed goes on from its checkpoint and ends with the same rows and weights, for
//! every random number is keyed by seed and step. A finished run is not run again.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::DataFrame;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::diagnostics::STARVED;
use super::{Budget, Spent, StepConfig, Trainer, checkpoint, evaluate};
use crate::method::Method;
use crate::models::LanguageModel;
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::record::{EvaluationRow, Kind, RunFolder, SampleRow, StepRow};
use crate::target::Target;
use crate::tasks::{Prompt, Split, Task};

/// The algorithm's version: a digest of the sources that decide a run's numbers, made by the build.
pub const ALGORITHM: &str = env!("QSTAR_ALGORITHM");

/// How long a run is and how often it looks up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The most steps. A run ends before where its budget is spent or its divergence too large.
    pub steps: u64,
    #[serde(default)]
    pub budget: Option<Budget>,
    /// The held-out KL(π_θ‖π_init) of a response, in nats, above which an evaluation ends the run.
    #[serde(default)]
    pub max_kl: Option<f64>,
    /// So many evaluations without a new best held-out reward end the run.
    #[serde(default)]
    pub patience: Option<usize>,
    /// Whether the policy of the best held-out reward is kept beside the last one. Chosen on the prompts that it is measured
    /// on, its reward there is too high: choose on `HeldOut::Validation`, or measure it on others.
    #[serde(default)]
    pub keep_best: bool,
    /// Steps between evaluations; there is one before the first step and one after the last.
    pub evaluate_every: u64,
    /// Held-out prompts.
    pub evaluation_prompts: usize,
    #[serde(default)]
    pub evaluate_on: HeldOut,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    pub step: StepConfig,
}

impl RunConfig {
    /// # Errors
    /// A run without a step, or a constant outside of its range; it is named.
    pub fn check(&self) -> Result<()> {
        ensure!(self.steps > 0, "a run needs a step: steps is 0");
        ensure!(self.evaluate_every > 0 && self.checkpoint_every > 0, "evaluate_every and checkpoint_every are not 0");
        ensure!(self.evaluation_prompts > 0, "an evaluation needs a prompt: evaluation_prompts is 0");
        ensure!(self.patience != Some(0), "patience is at least one evaluation");
        ensure!(!self.budget.is_some_and(|budget| budget.is_spent(&Spent::default())), "the budget is 0");
        self.step.check()
    }
}

/// Prompts that no training sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOut {
    /// The task's test split: what results are reported on.
    #[default]
    Test,
    /// The task's validation split: what settings are chosen on.
    Validation,
}

impl HeldOut {
    /// The number of different prompts, where it is finite.
    pub fn size(self, task: &dyn Task) -> Option<u64> {
        task.size(self.split())
    }

    fn split(self) -> Split {
        match self {
            HeldOut::Test => Split::Test,
            HeldOut::Validation => Split::Validation,
        }
    }

    /// Held-out prompt i.
    pub fn prompt(self, task: &dyn Task, i: u64) -> Prompt {
        task.prompt(self.split(), i)
    }
}

/// All that decides a run's result. Its hash is in the run's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    pub task: String,
    pub method: Method,
    pub seed: u64,
    pub config: RunConfig,
    /// Digest of the weights of π_init.
    pub initial: String,
    /// That of the target, or `none`.
    pub target: String,
    pub algorithm: String,
}

impl RunSpec {
    /// The spec of a run of `method` on `task` with these models.
    pub fn new(task: &dyn Task, method: Method, seed: u64, config: RunConfig, models: &Models) -> Result<Self> {
        // A seed's prompts begin at seed · 2^32, those of the embedded models at 20260 · 2^32.
        ensure!(seed < 20_000, "a seed lies below 20000: {seed}");
        method.check()?;
        config.check()?;
        config.step.check_method(&method)?;
        Ok(Self {
            task: task.identity(),
            target: target_of(&method, models),
            method,
            seed,
            config,
            initial: models.initial.digest()?,
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

/// The models of a run. A clone shares their memory.
#[derive(Clone)]
pub struct Models {
    /// π_init: where the policy starts, and the reference of its KL.
    pub initial: Arc<LanguageModel>,
    /// π_t.
    pub target: Arc<dyn Target>,
}

/// The identity of the target that a method's responses depend on; `none` where it looks at none, so that its runs are the
/// same beside every target.
fn target_of(method: &Method, models: &Models) -> String {
    if method.source.needs_target() { models.target.identity() } else { "none".to_string() }
}

/// Whether a run was trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trained {
    /// It is done.
    Here,
    /// Another process is working on it.
    Elsewhere,
}

/// A run and its folder.
pub struct Run {
    pub spec: RunSpec,
    pub folder: RunFolder,
    ranks: Ranks,
}

/// In the chain of an error: the step in which a training failed. Other errors are of the disk or of how it was started.
#[derive(Debug)]
pub struct InStep(pub u64);

impl fmt::Display for InStep {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "step {}", self.0)
    }
}

/// How rank 0 finds a run's folder.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Found {
    Done,
    /// Another process works on it.
    Taken,
    Free,
}

const SPEC: &str = "spec.json";
const DONE: &str = "done.json";

impl Run {
    /// The run's place is `runs/NAME`.
    pub fn new(runs: &Path, spec: RunSpec) -> Result<Self> {
        let folder = RunFolder::new(runs.join(spec.name()?));
        Ok(Self { spec, folder, ranks: Ranks::alone() })
    }

    /// The run as several processes train it together. They share a disk: rank 0 alone writes the folder, all of them read it.
    pub fn over(self, ranks: &Ranks) -> Self {
        Self { ranks: ranks.clone(), ..self }
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
        match self.try_train(task, models, progress)? {
            Trained::Here => Ok(()),
            Trained::Elsewhere => bail!("{}: another process is working on this run", self.folder.path().display()),
        }
    }

    /// As [`Run::train`], but a run that another process works on is no error.
    ///
    /// # Errors
    /// As [`Run::train`], but for that.
    pub fn try_train(&self, task: &dyn Task, models: &Models, progress: &Progress) -> Result<Trained> {
        let name = self.spec.name()?;
        self.ranks.same("the run", &name)?;
        ensure!(self.spec.initial == models.initial.digest()?, "{name}: π_init is not the model of the spec");
        let target = target_of(&self.spec.method, models);
        ensure!(self.spec.target == target, "{name}: the target is not the model of the spec");
        let mut lock = None;
        let found = self.ranks.on_rank_0(|| self.find(&mut lock))?;
        match found {
            Found::Done => progress.inc(self.spec.config.steps),
            Found::Taken => return Ok(Trained::Elsewhere),
            Found::Free => self.finish(task, models, progress).with_context(|| format!("run {name}"))?,
        }
        Ok(Trained::Here)
    }

    /// Takes the run's folder if it is free.
    fn find(&self, lock: &mut Option<File>) -> Result<Found> {
        if self.is_done() {
            return Ok(Found::Done);
        }
        self.folder.create()?;
        *lock = self.folder.try_lock()?;
        if lock.is_none() {
            return Ok(Found::Taken);
        }
        // Another process may have done it between the first look and the lock.
        if self.is_done() {
            return Ok(Found::Done);
        }
        self.write_spec()?;
        Ok(Found::Free)
    }

    /// The steps that are written down so far.
    pub fn steps_done(&self) -> Result<u64> {
        self.folder.steps_written()
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
        let target = Some(&*models.target);
        let trainer = Trainer::new(task, method.clone(), config.step, *seed, &models.initial, &reference, target)?;
        let mut trainer = trainer.over(&self.ranks)?;
        self.restore(&mut trainer)?;
        progress.inc(trainer.step_count());
        let mut pending = Pending::default();
        let look = |trainer: &Trainer, pending: &mut Pending, looks: &mut Looks| -> Result<()> {
            let policy = trainer.policy.frozen()?;
            let held_out = (config.evaluate_on, config.evaluation_prompts);
            let stand = (trainer.step_count(), trainer.spent());
            let evaluation = evaluate(task, &policy, &reference, held_out, *seed, stand, &self.ranks)?;
            if looks.add(evaluation.row.reward, evaluation.row.kl) && config.keep_best {
                self.ranks.on_rank_0(|| checkpoint::save_best(&self.folder, &trainer.policy))?;
            }
            pending.evaluations.push(evaluation.row);
            pending.samples.extend(evaluation.samples);
            Ok(())
        };
        let mut from = trainer.step_count();
        let mut looks = Looks::default();
        match from {
            0 => look(&trainer, &mut pending, &mut looks)?,
            _ => looks = self.ranks.on_rank_0(|| Looks::of(&self.folder.rows(Kind::Evaluations)?))?,
        }
        let (mut warned, mut learned, mut drawn) = (false, 0, 0);
        let end = loop {
            if let Some(end) = self.end(&trainer, &looks) {
                break end;
            }
            let step = trainer.step_count();
            // Inside the pool, so that its threads are not woken and waited for at every product.
            let row = rayon::scope(|_| trainer.step()).context(InStep(step))?;
            // One step of a few samples says little of a share of 1%: what is accepted is judged over many.
            (learned, drawn) = (learned + row.learned, drawn + self.spec.config.step.samples(&self.spec.method) as i64);
            let few = row.acceptance.map(|_| drawn >= JUDGED && (learned as f64) < STARVED * drawn as f64);
            if few.unwrap_or(row.starved) && !warned {
                warned = true;
                println!("{} starves at step {step}: {}", self.spec.name()?, starvation(&row, learned, drawn));
            }
            pending.steps.push(row);
            progress.inc(1);
            let step = trainer.step_count();
            let spent = self.end(&trainer, &looks).is_some();
            if step.is_multiple_of(config.evaluate_every) || spent {
                look(&trainer, &mut pending, &mut looks)?;
            }
            if step.is_multiple_of(config.checkpoint_every) || self.end(&trainer, &looks).is_some() {
                // Of processors that round differently each rank would train a policy of its own.
                if self.ranks.size() > 1 {
                    self.ranks.same("the trained policy", &trainer.params().digest()?)?;
                }
                let rows = std::mem::take(&mut pending);
                self.ranks.on_rank_0(|| {
                    rows.write(&self.folder, from, step)?;
                    checkpoint::save(&self.folder, &trainer)
                })?;
                from = step;
            }
        };
        progress.inc(config.steps - trainer.step_count());
        let weights = trainer.policy.digest()?;
        let done = serde_json::json!({ "steps": trainer.step_count(), "end": end, "weights": weights });
        self.ranks.on_rank_0(|| self.folder.write_text(DONE, &(done.to_string() + "\n")))
    }

    /// The state of the last checkpoint, where there is one; rows that were written after it are removed.
    fn restore(&self, trainer: &mut Trainer) -> Result<()> {
        self.ranks.agree(checkpoint::restore(&self.folder, trainer))?;
        if self.ranks.size() > 1 {
            let found = format!("{} steps\n{}", trainer.step_count(), trainer.params().digest()?);
            self.ranks.same("the checkpoint", &found)?;
        }
        self.ranks.on_rank_0(|| self.folder.remove_parts_after(trainer.step_count()))
    }

    /// Why the run ends here, if it does.
    fn end(&self, trainer: &Trainer, looks: &Looks) -> Option<&'static str> {
        let RunConfig { steps, budget, max_kl, patience, .. } = self.spec.config;
        if trainer.step_count() >= steps {
            Some("steps")
        } else if budget.is_some_and(|budget| budget.is_spent(trainer.spent())) {
            Some("budget")
        } else if max_kl.is_some_and(|most| looks.kl > most) {
            Some("kl")
        } else {
            patience.is_some_and(|most| looks.since_best >= most).then_some("patience")
        }
    }

    /// Why the run ended: `steps`, `budget`, `kl` or `patience`.
    ///
    /// # Errors
    /// A run that is not done; a damaged `done.json`.
    pub fn ended(&self) -> Result<String> {
        ensure!(self.is_done(), "{}: the run is not done", self.folder.path().display());
        let path = self.folder.file(DONE);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let done: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        let end = done["end"].as_str().with_context(|| format!("{}: says not why the run ended", path.display()))?;
        Ok(end.to_string())
    }

    /// The policy as the run left it. `initial` is π_init.
    ///
    /// # Errors
    /// A run that is not done; a file that does not belong to `initial`.
    pub fn trained(&self, initial: &LanguageModel) -> Result<LanguageModel> {
        ensure!(self.is_done(), "{}: the run is not done", self.folder.path().display());
        checkpoint::policy(&self.folder, initial, checkpoint::FILE)
    }

    /// The policy of the best held-out reward, where the run was asked to keep it.
    ///
    /// # Errors
    /// As [`Run::trained`]; a run without `keep_best`.
    pub fn best(&self, initial: &LanguageModel) -> Result<LanguageModel> {
        ensure!(self.spec.config.keep_best, "{}: the run did not keep its best policy", self.folder.path().display());
        checkpoint::policy(&self.folder, initial, checkpoint::BEST)
    }
}

/// What the evaluations have found: a run that goes on must see what it saw before.
#[derive(Default, Serialize, Deserialize)]
struct Looks {
    /// Of the last one.
    kl: f64,
    best: Option<f64>,
    /// Evaluations after the best one.
    since_best: usize,
}

impl Looks {
    fn of(evaluations: &DataFrame) -> Result<Self> {
        let mut looks = Self::default();
        let (rewards, kl) = (evaluations.column("reward")?.f64()?, evaluations.column("kl")?.f64()?);
        for (reward, kl) in rewards.iter().zip(kl.iter()) {
            looks.add(reward.context("an evaluation has no reward")?, kl.context("an evaluation has no kl")?);
        }
        Ok(looks)
    }

    /// Whether the reward is a new best one.
    fn add(&mut self, reward: f64, kl: f64) -> bool {
        self.kl = kl;
        let better = self.best.is_none_or(|best| reward > best);
        self.since_best = if better { 0 } else { self.since_best + 1 };
        if better {
            self.best = Some(reward);
        }
        better
    }
}

/// Samples over which the share that is accepted is judged.
const JUDGED: i64 = 200;

/// What a run starves of.
fn starvation(row: &StepRow, learned: i64, drawn: i64) -> String {
    let ess = [row.ess_token_raw, row.ess_prefix_raw, row.ess_sequence_raw].map(Option::unwrap_or_default);
    match row.acceptance {
        Some(_) => format!("{learned} of {drawn} responses were accepted"),
        None => format!(
            "its raw weights are worth {:.4}, {:.4}, {:.4} of the draws (token, prefix, sequence)",
            ess[0], ess[1], ess[2]
        ),
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
    fn write(self, folder: &RunFolder, from: u64, to: u64) -> Result<()> {
        folder.write_part(Kind::Steps, from, to, StepRow::frame(&self.steps)?)?;
        if !self.evaluations.is_empty() {
            folder.write_part(Kind::Evaluations, from, to, EvaluationRow::frame(&self.evaluations)?)?;
            folder.write_part(Kind::Samples, from, to, SampleRow::frame(&self.samples)?)?;
        }
        Ok(())
    }
}
