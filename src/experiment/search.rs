//! A search for each method's own setting: the same number of trials for all, judged on validation prompts.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use rand::Rng;

use super::plan::{Arm, Part, Plan};
use crate::method::{Method, Objective, Source, Treatment};
use crate::progress::Progress;
use crate::ranks::{OutOfStep, Ranks};
use crate::record::{Kind, record};
use crate::seed::{Purpose, rng};
use crate::train::{HeldOut, InStep, Run, RunConfig, StepConfig, Trained};

/// Ranges that settings are drawn from, log-uniformly. The first trial is the common setting, the others are drawn; trial i
/// of every method has the same learning rate and β.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    pub trials: usize,
    /// Of a trial; it is evaluated at its end, on validation prompts.
    pub steps: u64,
    /// The seed of the settings and of all trials' prompts and draws.
    pub seed: u64,
    pub learning_rate: [f64; 2],
    /// β of the divergence from π_init.
    pub kl_coefficient: [f64; 2],
    /// Of the ratio in PPO, GRPO and RLOO: half the width of its interval.
    pub clip: [f64; 2],
    /// Of weights: they are clipped into \[1/high, high\], or truncated at it.
    pub weight_high: [f64; 2],
    /// β of DPO's implied reward, and of the targets of rejection and of best of n.
    pub beta: [f64; 2],
}

record! {
    /// One trial of a search.
    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct TrialRow {
        pub task: String,
        pub parameters: i64,
        pub target: String,
        pub method: String,
        pub trial: i64,
        pub learning_rate: f64,
        pub kl_coefficient: f64,
        /// Of the ratio, or of the weights; null where the method clips nothing.
        pub clip: Option<f64>,
        /// Of DPO, rejection or best of n; null elsewhere.
        pub beta: Option<f64>,
        /// Reward on the validation prompts: before, and at the end.
        /// Null for a trial that ended with an error.
        pub reward_before: Option<f64>,
        pub reward: Option<f64>,
        pub kl: Option<f64>,
        pub samples: Option<f64>,
        /// Whether no trial of the method ended higher.
        pub best: bool,
        pub error: Option<String>,
        pub run: String,
    }
}

/// The trials of some arms of a part.
pub(super) struct Trials {
    /// \[arm\]\[trial\]
    trials: Vec<Vec<(Method, StepConfig, TrialRow)>>,
}

impl Search {
    /// Learning rates from a third to ten times the common one, β from a quarter to five times.
    pub fn around(common: &StepConfig) -> Self {
        let StepConfig { learning_rate, kl_coefficient, .. } = *common;
        Self {
            trials: 8,
            steps: 75,
            seed: 10_000,
            learning_rate: [learning_rate / 3.0, 10.0 * learning_rate],
            kl_coefficient: [kl_coefficient / 4.0, 5.0 * kl_coefficient],
            clip: [0.05, 0.5],
            weight_high: [2.0, 50.0],
            beta: [0.03, 0.5],
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(self.trials > 0 && self.steps > 0, "a search needs a trial, and a trial a step");
        ensure!(
            self.weight_high[0] >= 1.0,
            "weights are clipped at 1 or above, weight_high begins at {}",
            self.weight_high[0]
        );
        for (name, [low, high]) in [
            ("learning_rate", self.learning_rate),
            ("kl_coefficient", self.kl_coefficient),
            ("clip", self.clip),
            ("weight_high", self.weight_high),
            ("beta", self.beta),
        ] {
            ensure!(0.0 < low && low <= high, "the range of {name} is not one of positive numbers: [{low}, {high}]");
        }
        Ok(())
    }

    /// A trial's method, and what it is trained with.
    pub(super) fn trial(&self, arm: &Arm, trial: usize) -> (Method, RunConfig) {
        let (method, step) = self.setting(&arm.method, arm.config.step, trial);
        let once =
            RunConfig { steps: self.steps, evaluate_every: self.steps, checkpoint_every: self.steps, ..arm.config };
        (method, RunConfig { step, evaluate_on: HeldOut::Validation, ..once })
    }

    fn setting(&self, method: &Method, common: StepConfig, trial: usize) -> (Method, StepConfig) {
        let (mut method, mut step) = (method.clone(), common);
        if trial == 0 {
            return (method, step);
        }
        let mut rng = rng(self.seed, Purpose::Search, trial as u64, 0);
        let mut draw = |[low, high]: [f64; 2]| low * (high / low).powf(rng.random());
        step.learning_rate = draw(self.learning_rate);
        step.kl_coefficient = draw(self.kl_coefficient);
        // Always drawn, so that every method's numbers come from the same places.
        let (clip, high, beta) = (draw(self.clip), draw(self.weight_high), draw(self.beta));
        match &mut method.objective {
            Objective::Ppo(ppo) => ppo.clip = clip,
            Objective::Surrogate(surrogate) => surrogate.clip = clip,
            Objective::Dpo(dpo) => dpo.beta = beta,
            Objective::Reinforce | Objective::MaximumLikelihood => {}
        }
        match &mut method.weight.treatment {
            Treatment::Clipped { low, high: most } => (*low, *most) = (1.0 / high, high),
            Treatment::Truncated { high: most } => *most = high,
            Treatment::None | Treatment::Raw | Treatment::Normalized { .. } => {}
        }
        match &mut method.source {
            Source::Accepted(rejection) => rejection.beta = beta,
            Source::Picked(best) => best.beta = beta,
            Source::Drawn(_) | Source::Demonstrations | Source::Preferences => {}
        }
        (method, step)
    }
}

impl Trials {
    /// Trains all trials of some arms, one run each; what is done already, by whatever process, is not done again.
    ///
    /// # Errors
    /// No trials, a range that is none; what cannot be written.
    pub fn of(plan: &Plan, part: &Part, arms: Range<usize>) -> Result<Self> {
        let search = part.the_search();
        search.check()?;
        let mut asked = Vec::new();
        for arm in &part.arms[arms] {
            for trial in 0..search.trials {
                asked.push((trial, prepared(plan, part, arm, trial)?));
            }
        }
        let runs: Vec<(&Part, &Run)> = asked.iter().map(|(_, run)| (part, run)).collect();
        let ranks = &plan.ranks;
        plan.over_runs(&runs, &format!("{}, trials", plan.name), |part, run, progress| {
            train(ranks, part, run, progress)
        })?;
        let rows = || asked.iter().map(|(trial, run)| row(part, *trial, run)).collect::<Result<Vec<_>>>();
        let rows = ranks.on_rank_0(rows)?;
        let runs = asked.into_iter().map(|(_, run)| run.spec);
        let mut all: Vec<_> = runs.zip(rows).map(|(spec, row)| (spec.method, spec.config.step, row)).collect();
        let mut trials: Vec<Vec<_>> = Vec::new();
        while !all.is_empty() {
            let rest = all.split_off(search.trials);
            trials.push(std::mem::replace(&mut all, rest));
        }
        for of_arm in &mut trials {
            if let Some(best) = best(of_arm) {
                of_arm[best].2.best = true;
            }
        }
        Ok(Self { trials })
    }

    /// Trains one trial.
    pub fn train_one(plan: &Plan, part: &Part, arm: usize, trial: usize) -> Result<()> {
        part.the_search().check()?;
        let run = prepared(plan, part, &part.arms[arm], trial)?;
        let ranks = &plan.ranks;
        plan.over_runs(&[(part, &run)], &run.spec.name()?, |part, run, progress| train(ranks, part, run, progress))
    }

    /// The method and setting of an arm's best trial, where all its trials are done.
    pub fn best_if_done(plan: &Plan, part: &Part, arm: usize) -> Result<Option<(Method, StepConfig)>> {
        let search = part.the_search();
        let runs: Vec<Run> =
            (0..search.trials).map(|trial| prepared(plan, part, &part.arms[arm], trial)).collect::<Result<_>>()?;
        let rows = || -> Result<Option<Vec<TrialRow>>> {
            let mut rows = Vec::new();
            for (trial, run) in runs.iter().enumerate() {
                if !run.is_done() && failure(run)?.is_none() {
                    return Ok(None);
                }
                rows.push(row(part, trial, run)?);
            }
            Ok(Some(rows))
        };
        let Some(rows) = plan.ranks.on_rank_0(rows)? else { return Ok(None) };
        let mut all: Vec<_> =
            runs.into_iter().zip(rows).map(|(run, row)| (run.spec.method, run.spec.config.step, row)).collect();
        Ok(best(&all).map(|at| all.swap_remove(at)).map(|(method, step, _)| (method, step)))
    }

    /// A row a trial.
    ///
    /// # Errors
    /// A method of which no trial came to its end.
    pub fn rows(self) -> Result<Vec<TrialRow>> {
        for of_arm in &self.trials {
            let (_, _, first) = &of_arm[0];
            let found = of_arm.iter().any(|(_, _, row)| row.best);
            ensure!(found, "no trial of {} came to its end; the first: {:?}", first.method, first.error);
        }
        Ok(self.trials.into_iter().flatten().map(|(_, _, row)| row).collect())
    }
}

/// A trial that ended with an error says so here: it is a result of the search, not its end.
const FAILED: &str = "failed.txt";

fn prepared(plan: &Plan, part: &Part, arm: &Arm, trial: usize) -> Result<Run> {
    let search = part.the_search();
    let (method, config) = search.trial(arm, trial);
    plan.run(part, method, config, search.seed)
}

fn train(ranks: &Ranks, part: &Part, run: &Run, progress: &Progress) -> Result<Trained> {
    if ranks.on_rank_0(|| failure(run))?.is_some() {
        progress.inc(run.spec.config.steps);
        return Ok(Trained::Here);
    }
    match run.try_train(&*part.world.task, &part.world.models, progress) {
        Err(error) if error.is::<InStep>() && !error.is::<OutOfStep>() => {
            ranks.on_rank_0(|| run.folder.write_text(FAILED, &format!("{error:#}\n")))?;
            Ok(Trained::Here)
        }
        trained => trained,
    }
}

fn failure(run: &Run) -> Result<Option<String>> {
    let path = run.folder.file(FAILED);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end().to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The trial with the highest reward, the first of equals.
fn best(of_arm: &[(Method, StepConfig, TrialRow)]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (at, (_, _, row)) in of_arm.iter().enumerate() {
        let Some(reward) = row.reward.filter(|reward| !reward.is_nan()) else { continue };
        if best.is_none_or(|(_, most)| reward > most) {
            best = Some((at, reward));
        }
    }
    best.map(|(at, _)| at)
}

fn row(part: &Part, trial: usize, run: &Run) -> Result<TrialRow> {
    let error = failure(run)?;
    let ends = match error {
        Some(_) => None,
        None => Some(Ends::of(run)?),
    };
    let (method, step) = (&run.spec.method, &run.spec.config.step);
    let clip = match (method.objective, method.weight.treatment) {
        (Objective::Ppo(ppo), _) => Some(ppo.clip),
        (Objective::Surrogate(surrogate), _) => Some(surrogate.clip),
        (_, Treatment::Clipped { high, .. } | Treatment::Truncated { high }) => Some(high),
        _ => None,
    };
    let beta = match (method.objective, method.source) {
        (Objective::Dpo(dpo), _) => Some(dpo.beta),
        (_, Source::Accepted(rejection)) => Some(rejection.beta),
        (_, Source::Picked(best)) => Some(best.beta),
        _ => None,
    };
    Ok(TrialRow {
        task: part.world.task.name().to_string(),
        parameters: part.world.models.initial.params.count() as i64,
        target: part.target.clone(),
        method: method.name.to_string(),
        trial: trial as i64,
        learning_rate: step.learning_rate,
        kl_coefficient: step.kl_coefficient,
        clip,
        beta,
        reward_before: ends.as_ref().map(|ends| ends.reward[0]),
        reward: ends.as_ref().map(|ends| ends.reward[1]),
        kl: ends.as_ref().map(|ends| ends.kl),
        samples: ends.as_ref().map(|ends| ends.samples),
        best: false,
        error,
        run: run.spec.name()?,
    })
}

/// The first and the last evaluation of a trial.
struct Ends {
    reward: [f64; 2],
    kl: f64,
    samples: f64,
}

impl Ends {
    fn of(run: &Run) -> Result<Self> {
        let evaluations = run.folder.rows(Kind::Evaluations)?;
        let ends = |name: &str| -> Result<[f64; 2]> {
            let column = evaluations.column(name)?.f64()?;
            let both = column.first().zip(column.last());
            both.map(|(first, last)| [first, last]).context("a trial has no evaluations")
        };
        let samples = evaluations.column("samples")?.i64()?.last().context("a trial has no evaluations")?;
        Ok(Self { reward: ends("reward")?, kl: ends("kl")?[1], samples: samples as f64 })
    }
}
