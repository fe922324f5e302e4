//! What the runs of one method came to, a number a seed.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::estimates::{BOOTSTRAP_SEED, BySeed, CONFIDENCE, Estimate, RESAMPLES, values};
use super::frames::{Comparison, MethodRuns, OneRun};
use crate::metrics::{Reached, Reading, area_under_curve, bootstrap_gain, mean, sample_efficiency, samples_to, sd};

/// The method that all are held against, those of its controlled comparison and of sample efficiency, and the one that
/// responses are compared with.
pub(super) const QSTAR: &str = "qstar";
pub(super) const REINFORCE: &str = "reinforce";
pub(super) const ON_POLICY: &str = "on_policy";
pub(super) const SFT: &str = "sft";

/// One method at one place.
#[derive(Debug, Clone)]
pub(super) struct Scored {
    pub method: String,
    /// Held-out reward at the first, at the best and at the last evaluation.
    pub before: BySeed,
    pub best: BySeed,
    pub after: BySeed,
    /// Learning curves of (samples, reward).
    pub curves: Vec<(i64, Vec<(f64, f64)>)>,
    /// Of the last evaluation: KL(π_θ‖π_init) a response, entropy a token, distinct bigrams.
    pub kl: BySeed,
    pub entropy: BySeed,
    pub distinct_2: BySeed,
    /// Mean over steps of ln(ESS_p/ESS_t), and the share of single ratios in \[0.9, 1.1\]; empty without a mixture.
    pub log_ess_ratio: BySeed,
    pub ess_near_1: BySeed,
    /// Held-out responses before and after training; empty where the frame of samples has none.
    pub answers: Vec<Answers>,
}

/// The held-out responses of one run.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub seed: i64,
    pub first: Responses,
    pub last: Responses,
}

/// Held-out responses of one evaluation, by prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Responses {
    pub index: Vec<i64>,
    pub family: Vec<String>,
    pub reward: Vec<f64>,
}

impl Scored {
    /// All methods of a comparison.
    pub fn all(comparison: &Comparison) -> Result<Vec<Self>> {
        let scored = |runs: &MethodRuns| {
            Self::of(runs).with_context(|| format!("{} on {}", runs.method, comparison.place.in_words()))
        };
        comparison.methods.iter().map(scored).collect()
    }

    fn of(runs: &MethodRuns) -> Result<Self> {
        let mut scored = Self {
            method: runs.method.clone(),
            before: Vec::new(),
            best: Vec::new(),
            after: Vec::new(),
            curves: Vec::new(),
            kl: Vec::new(),
            entropy: Vec::new(),
            distinct_2: Vec::new(),
            log_ess_ratio: Vec::new(),
            ess_near_1: Vec::new(),
            answers: runs.samples.iter().map(Answers::of).collect::<Result<_>>()?,
        };
        for run in &runs.evaluations {
            let (reward, samples) = (run.all("reward")?, run.all("samples")?);
            let last = reward.len() - 1;
            scored.before.push((run.seed, reward[0]));
            scored.best.push((run.seed, reward.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
            scored.after.push((run.seed, reward[last]));
            scored.curves.push((run.seed, samples.into_iter().zip(reward).collect()));
            scored.kl.push((run.seed, run.all("kl")?[last]));
            scored.entropy.push((run.seed, run.all("entropy")?[last]));
            scored.distinct_2.push((run.seed, run.all("distinct_2")?[last]));
        }
        for run in &runs.steps {
            let ratios = run.some("ess_ratio_geometric")?;
            if !ratios.is_empty() {
                scored.log_ess_ratio.push((run.seed, mean(&ratios.iter().map(|ratio| ratio.ln()).collect::<Vec<_>>())));
                scored.ess_near_1.push((run.seed, mean(&run.some("ess_ratio_near_1")?)));
            }
        }
        Ok(scored)
    }

    /// The gain in held-out reward; its interval by the crossed bootstrap over seeds and prompts, where there are responses.
    pub fn gain(&self) -> Result<Estimate> {
        let value = mean(&values(&self.after)) - mean(&values(&self.before));
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for answers in &self.answers {
            answers.first.check_prompts(&answers.last, &self.method)?;
            first.push(answers.first.reward.clone());
            last.push(answers.last.reward.clone());
        }
        if first.len() < 2 {
            return Ok(Estimate { value, low: None, high: None });
        }
        let interval = bootstrap_gain(&first, &last, RESAMPLES, BOOTSTRAP_SEED);
        let interval = interval.with_context(|| format!("the gain of {}", self.method))?;
        Ok(Estimate { value, low: Some(interval.low), high: Some(interval.high) })
    }

    /// The standard deviation over seeds of the last held-out reward.
    pub fn reward_sd(&self) -> Option<f64> {
        (self.after.len() > 1).then(|| sd(&values(&self.after)))
    }

    /// By how much the last reward lies below the best of its run: mean over seeds.
    pub fn drop_from_best(&self) -> f64 {
        let drops: Vec<f64> = self.best.iter().zip(&self.after).map(|((_, best), (_, last))| best - last).collect();
        mean(&drops)
    }

    /// The mean height of each seed's learning curve over `range` of samples; none of a curve that is shorter.
    pub fn areas(&self, range: (f64, f64)) -> BySeed {
        let area = |(seed, curve): &(i64, Vec<(f64, f64)>)| {
            area_under_curve(curve, range.0, range.1).ok().map(|area| (*seed, area))
        };
        self.curves.iter().filter_map(area).collect()
    }

    /// When each run first reached the level.
    pub fn reached(&self, level: f64) -> Result<Vec<Reached>> {
        let reached = |(seed, curve): &(i64, Vec<(f64, f64)>)| {
            samples_to(curve, level).with_context(|| format!("{}, seed {seed}", self.method))
        };
        self.curves.iter().map(reached).collect()
    }

    /// ESS_p/ESS_t: the geometric mean over steps and seeds, with Student's interval of the logarithms over seeds.
    pub fn ess_ratio(&self) -> Option<Estimate> {
        Estimate::geometric(&values(&self.log_ess_ratio))
    }
}

/// The samples that every run of every method was watched for.
pub(super) fn common_range(scored: &[Scored]) -> (f64, f64) {
    let curves = || scored.iter().flat_map(|scored| &scored.curves).map(|(_, curve)| curve);
    let from = curves().map(|curve| curve[0].0).fold(0.0, f64::max);
    let to = curves().map(|curve| curve[curve.len() - 1].0).fold(f64::INFINITY, f64::min);
    (from, to)
}

/// How many times fewer samples than a baseline a method needs to a level.
#[derive(Debug, Clone)]
pub(super) struct Fewer {
    /// The baseline's samples over the method's; none where no run of either got there.
    pub ratio: Option<Estimate>,
    /// What the ratio says of that of the true means: `exact`, `at least`, `at most`, `restricted`.
    pub reading: Option<&'static str>,
    /// So many runs of the method got there.
    pub reached: usize,
}

impl Fewer {
    /// Of a method against a baseline; of the baseline against itself it is 1, where a run of it got there.
    pub fn of(baseline: &Scored, method: &Scored, level: f64) -> Result<Self> {
        let (theirs, own) = (baseline.reached(level)?, method.reached(level)?);
        let there = |runs: &[Reached]| runs.iter().filter(|run| matches!(run, Reached::At(_))).count();
        let reached = there(&own);
        if there(&theirs) + reached == 0 {
            return Ok(Self { ratio: None, reading: None, reached });
        }
        if baseline.method == method.method {
            let ratio = Estimate { value: 1.0, low: None, high: None };
            return Ok(Self { ratio: Some(ratio), reading: Some("exact"), reached });
        }
        let found = sample_efficiency(&theirs, &own, CONFIDENCE, RESAMPLES, BOOTSTRAP_SEED)
            .with_context(|| format!("{} against {}, at the level {level}", method.method, baseline.method))?;
        let reading = match found.reading {
            Reading::Exact => "exact",
            Reading::AtLeast => "at least",
            Reading::AtMost => "at most",
            Reading::Restricted => "restricted",
        };
        let seeds = own.len().min(theirs.len());
        Ok(Self { ratio: Some(Estimate::of(found.ratio, seeds)), reading: Some(reading), reached })
    }
}

/// The share of held-out prompts that a method answers better than another after training, the same seed against the
/// same seed, ties counted half; its interval by the crossed bootstrap over seeds and prompts. None without common seeds.
pub(super) fn win_rate(method: &Scored, other: &Scored) -> Result<Option<Estimate>> {
    let mut outcomes: Vec<Vec<f64>> = Vec::new();
    for own in &method.answers {
        let Some(theirs) = other.answers.iter().find(|answers| answers.seed == own.seed) else { continue };
        own.last.check_prompts(&theirs.last, &format!("{} and {}", method.method, other.method))?;
        outcomes.push(own.last.outcomes(&theirs.last));
    }
    if outcomes.is_empty() {
        return Ok(None);
    }
    let zero: Vec<Vec<f64>> = outcomes.iter().map(|prompts| vec![0.0; prompts.len()]).collect();
    let interval = bootstrap_gain(&zero, &outcomes, RESAMPLES, BOOTSTRAP_SEED)
        .with_context(|| format!("the win rate of {} against {}", method.method, other.method))?;
    Ok(Some(Estimate::of(interval, outcomes.len())))
}

impl Answers {
    fn of(run: &OneRun) -> Result<Self> {
        let steps = run.all("step")?;
        let (first, last) = (steps[0], steps[steps.len() - 1]);
        Ok(Self { seed: run.seed, first: Responses::at(run, first)?, last: Responses::at(run, last)? })
    }
}

impl Responses {
    /// Those of the evaluation at a step.
    ///
    /// # Errors
    /// Two responses to one prompt, a reward that is not finite.
    pub fn at(run: &OneRun, step: f64) -> Result<Self> {
        let (steps, index, reward) = (run.all("step")?, run.all("index")?, run.all("reward")?);
        let family = run.texts("family")?;
        let mut rows: Vec<usize> = (0..steps.len()).filter(|row| steps[*row] == step).collect();
        rows.sort_by(|a, b| index[*a].total_cmp(&index[*b]));
        let twice = rows.windows(2).find(|two| index[two[0]] == index[two[1]]);
        ensure!(
            twice.is_none(),
            "seed {} has two responses to one prompt at step {step}: the frame of samples mixes runs",
            run.seed
        );
        Ok(Self {
            index: rows.iter().map(|row| index[*row] as i64).collect(),
            family: rows.iter().map(|row| family[*row].clone()).collect(),
            reward: rows.iter().map(|row| reward[*row]).collect(),
        })
    }

    /// Those of the last evaluation; none where a reward is not a number.
    pub fn last(run: &OneRun) -> Result<Option<Self>> {
        if run.series("reward")?.iter().any(|reward| !reward.is_some_and(f64::is_finite)) {
            return Ok(None);
        }
        let last = run.all("step")?.into_iter().fold(f64::NEG_INFINITY, f64::max);
        Self::at(run, last).map(Some)
    }

    /// The responses to prompts of one family.
    pub fn of_family(&self, family: &str) -> Self {
        let kept: Vec<usize> = (0..self.index.len()).filter(|at| self.family[*at] == family).collect();
        Self {
            index: kept.iter().map(|at| self.index[*at]).collect(),
            family: kept.iter().map(|at| self.family[*at].clone()).collect(),
            reward: kept.iter().map(|at| self.reward[*at]).collect(),
        }
    }

    /// # Errors
    /// Other prompts.
    pub fn check_prompts(&self, other: &Self, who: &str) -> Result<()> {
        ensure!(
            self.index == other.index,
            "{who}: responses to different held-out prompts ({} and {}) are not compared: give all runs the same \
             evaluation_prompts",
            self.index.len(),
            other.index.len()
        );
        Ok(())
    }

    /// 1 where this is better, 0 where the other is, 1/2 for a tie.
    pub fn outcomes(&self, other: &Self) -> Vec<f64> {
        let outcome = |(own, theirs): (&f64, &f64)| match own.total_cmp(theirs) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        self.reward.iter().zip(&other.reward).map(outcome).collect()
    }
}

/// The families of responses, in the order of their names.
pub(super) fn families(scored: &[Scored]) -> Vec<String> {
    let all = scored.iter().flat_map(|scored| &scored.answers).flat_map(|answers| &answers.last.family);
    all.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}
