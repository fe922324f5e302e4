//! A search for each method's own setting: the same number of trials for all, judged on validation prompts.

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::DataFrame;
use rand::Rng;

use super::{Plan, Tuned};
use crate::method::{Method, Objective, Source, Treatment};
use crate::record::{Kind, record};
use crate::seed::{Purpose, rng};
use crate::train::{HeldOut, Run, RunConfig, StepConfig};

/// Ranges that settings are drawn from, log-uniformly. The first trial is the common setting, the others are drawn; trial i
/// of every method has the same learning rate and β.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    pub trials: usize,
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

impl Default for Search {
    /// Around the common setting of the embedded world.
    fn default() -> Self {
        Self {
            trials: 8,
            seed: 10_000,
            learning_rate: [1e-4, 3e-3],
            kl_coefficient: [0.005, 0.1],
            clip: [0.05, 0.5],
            weight_high: [2.0, 50.0],
            beta: [0.03, 0.5],
        }
    }
}

record! {
    /// One trial of a search.
    pub struct TrialRow {
        pub task: String,
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

/// The trials of a search.
pub struct Trials {
    trials: Vec<(Tuned, TrialRow)>,
}

impl Search {
    /// Trains all trials of the plan's methods, one run each; what is done already is not done again.
    ///
    /// # Errors
    /// No trials, a range that is none; what ends a run.
    pub fn run(&self, plan: &Plan) -> Result<Trials> {
        ensure!(self.trials > 0, "a search needs a trial");
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
        let (mut settings, mut runs) = (Vec::new(), Vec::new());
        for method in &plan.methods {
            for trial in 0..self.trials {
                let tuned = self.setting(method, plan.size.run.step, trial);
                let config = RunConfig { step: tuned.step, evaluate_on: HeldOut::Validation, ..plan.size.run };
                runs.push(plan.run(tuned.method.clone(), config, self.seed)?);
                settings.push((tuned, trial));
            }
        }
        // A setting that ends in numbers that are none is a result of the search, not its end.
        let errors = plan.over_runs(&runs, "trials", |run, progress| {
            let trained = run.train(&*plan.world.task, &plan.world.models, progress);
            Ok(trained.err().map(|error| format!("{error:#}")))
        })?;
        let mut trials = Vec::new();
        for (((tuned, trial), run), error) in settings.into_iter().zip(&runs).zip(errors) {
            let row = row(&tuned, trial, run, error)?;
            trials.push((tuned, row));
        }
        for of_method in trials.chunks_mut(self.trials) {
            let rewards = of_method.iter().filter_map(|(_, row)| row.reward).filter(|reward| !reward.is_nan());
            let best = rewards.fold(f64::NEG_INFINITY, f64::max);
            match of_method.iter_mut().find(|(_, row)| row.reward == Some(best)) {
                Some((_, row)) => row.best = true,
                None => {
                    let (_, row) = &of_method[0];
                    bail!("no trial of {} came to its end; the first: {:?}", row.method, row.error)
                }
            }
        }
        Ok(Trials { trials })
    }

    fn setting(&self, method: &Method, common: StepConfig, trial: usize) -> Tuned {
        let (mut method, mut step) = (method.clone(), common);
        if trial == 0 {
            return Tuned { method, step };
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
        Tuned { method, step }
    }
}

impl Trials {
    /// A row a trial.
    pub fn frame(&self) -> Result<DataFrame> {
        TrialRow::frame(&self.trials.iter().map(|(_, row)| row.clone()).collect::<Vec<_>>())
    }

    /// The best setting of every method, under the name `METHOD_tuned`.
    pub fn best(&self) -> Vec<Tuned> {
        let best = self.trials.iter().filter(|(_, row)| row.best);
        best.map(|(tuned, _)| {
            let name = format!("{}_tuned", tuned.method.name).into();
            Tuned { method: Method { name, ..tuned.method.clone() }, step: tuned.step }
        })
        .collect()
    }
}

fn row(tuned: &Tuned, trial: usize, run: &Run, error: Option<String>) -> Result<TrialRow> {
    let ends = match error {
        Some(_) => None,
        None => Some(Ends::of(run)?),
    };
    let method = &tuned.method;
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
        task: run.spec.task.clone(),
        method: method.name.to_string(),
        trial: trial as i64,
        learning_rate: tuned.step.learning_rate,
        kl_coefficient: tuned.step.kl_coefficient,
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
