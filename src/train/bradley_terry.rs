//! Training of reward models on preference pairs, and of classifiers of their responses.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::{AdamW, AdamWConfig, Gradient, Schedule};
use crate::progress::Progress;
use crate::record::record;
use crate::reward::{Preference, Preferences, RewardModel, bradley_terry_loss};
use crate::seed::{Purpose, rng};

/// The constants of a reward model's training: AdamW (weight decay 0.01) with a linear warm-up and a cosine decay to zero,
/// gradients clipped to the norm 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BradleyTerry {
    pub steps: usize,
    /// Pairs a step.
    pub batch: usize,
    /// Pairs that are computed at once: gradients are summed over a batch, memory is that of so many pairs.
    pub microbatch: usize,
    pub learning_rate: f64,
    pub warmup_steps: usize,
    /// Decides the order of the pairs, which is a new one in every pass over them.
    pub seed: u64,
}

record! {
    /// One step of a reward model's training.
    pub struct RewardStepRow {
        pub step: i64,
        /// The mean of −log σ(r(chosen) − r(rejected) − margin) over the step's pairs, or of a classifier's loss over their
        /// responses, in nats, before its update.
        pub loss: f64,
        /// The share of pairs of which the chosen one had the higher reward; equal rewards count as half right.
        pub accuracy: f64,
        /// The mean of r(chosen) − r(rejected).
        pub margin: f64,
        /// Before clipping.
        pub gradient_norm: f64,
        pub learning_rate: f64,
        pub seconds: f64,
    }
}

/// Trains `model` on `preferences`. Same seed, same bits, whatever the number of threads.
///
/// # Errors
/// A batch or microbatch of none; a sequence that the model cannot read, whose pair is named, before anything is
/// trained; a loss that is not a number, whose step is named.
pub fn train_reward_model(
    model: &RewardModel,
    config: &BradleyTerry,
    label: &str,
    preferences: &Preferences,
) -> Result<Vec<RewardStepRow>> {
    train(model, config, label, preferences, Loss::Pairs)
}

/// Trains `model` to tell chosen from rejected responses one by one: the mean of −log σ(r) over the chosen and of
/// −log σ(−r) over the rejected ones. Then σ(r) is the probability that a response is of the better kind, which a reward
/// model's scores do not say: they mean something only beside another one's. All else as in [`train_reward_model`]; margins
/// are ignored, and the rows' loss is this one.
///
/// # Errors
/// As [`train_reward_model`].
pub fn train_response_classifier(
    model: &RewardModel,
    config: &BradleyTerry,
    label: &str,
    preferences: &Preferences,
) -> Result<Vec<RewardStepRow>> {
    train(model, config, label, preferences, Loss::Responses)
}

#[derive(Clone, Copy)]
enum Loss {
    Pairs,
    Responses,
}

impl Loss {
    fn of(self, chosen: &Tensor, rejected: &Tensor, margins: &[f64]) -> candle_core::Result<Tensor> {
        match self {
            Loss::Pairs => bradley_terry_loss(chosen, rejected, margins),
            // Beside a response whose reward is 0, Bradley and Terry's probability is σ(r).
            Loss::Responses => {
                let (zero, none) = (chosen.zeros_like()?, vec![0.0; margins.len()]);
                let (right, wrong) =
                    (bradley_terry_loss(chosen, &zero, &none)?, bradley_terry_loss(&zero, rejected, &none)?);
                (right + wrong)? * 0.5
            }
        }
    }
}

fn train(
    model: &RewardModel,
    config: &BradleyTerry,
    label: &str,
    preferences: &Preferences,
    loss: Loss,
) -> Result<Vec<RewardStepRow>> {
    ensure!(config.batch > 0 && config.microbatch > 0, "a batch and a microbatch need a pair: {config:?}");
    preferences.check(&model.network)?;
    if let Some(left_out) = preferences.left_out() {
        println!("{label}: {left_out}");
    }
    let mut optimizer = AdamW::new(&model.params, AdamWConfig { weight_decay: 0.01, ..Default::default() })?;
    let mut order = Order::new(preferences.pairs(), config.seed);
    let schedule = Schedule::Cosine { steps: config.steps as u64 };
    let progress = Progress::new(label, config.steps as u64);
    let mut rows = Vec::with_capacity(config.steps);
    for step in 0..config.steps {
        let start = Instant::now();
        let pairs: Vec<&Preference> = (0..config.batch).map(|_| order.next()).collect();
        // Inside the pool, so that its threads are not woken and waited for at every product.
        let (mut gradient, measured) = rayon::scope(|_| of_batch(model, &pairs, config.microbatch, loss))
            .with_context(|| format!("{label}, step {step}"))?;
        let norm = gradient.clip(1.0)?;
        let learning_rate = schedule.rate(step as u64, config.warmup_steps as u64, config.learning_rate);
        optimizer.step(&model.params, &gradient, learning_rate)?;
        let n = pairs.len() as f64;
        let (loss, accuracy) = (measured.loss / n, measured.right / n);
        progress.message(format!("loss {loss:.3}, accuracy {accuracy:.2}"));
        progress.inc(1);
        rows.push(RewardStepRow {
            step: step as i64,
            loss,
            accuracy,
            margin: measured.margin / n,
            gradient_norm: norm,
            learning_rate,
            seconds: start.elapsed().as_secs_f64(),
        });
    }
    progress.finish();
    Ok(rows)
}

/// Sums over pairs.
#[derive(Default)]
struct Measured {
    loss: f64,
    right: f64,
    margin: f64,
}

/// The gradient of the mean loss of a batch.
fn of_batch(model: &RewardModel, pairs: &[&Preference], microbatch: usize, loss: Loss) -> Result<(Gradient, Measured)> {
    let mut measured = Measured::default();
    let mut sum: Option<Gradient> = None;
    for part in pairs.chunks(microbatch) {
        let sides = part.iter().map(|pair| &pair.chosen[..]).chain(part.iter().map(|pair| &pair.rejected[..]));
        let scores = model.network.scores(&sides.collect::<Vec<_>>())?;
        let (chosen, rejected) = (scores.narrow(0, 0, part.len())?, scores.narrow(0, part.len(), part.len())?);
        let margins: Vec<f64> = part.iter().map(|pair| pair.margin).collect();
        let mean = loss.of(&chosen, &rejected, &margins)?;
        let value = mean.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        ensure!(value.is_finite(), "the loss is {value}");
        measured.loss += value * part.len() as f64;
        let scores = scores.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        for (c, r) in scores[..part.len()].iter().zip(&scores[part.len()..]) {
            measured.right += if c == r { 0.5 } else { f64::from(c > r) };
            measured.margin += c - r;
        }
        // Parts may differ in size.
        let share = part.len() as f64 / pairs.len() as f64;
        let gradient = Gradient::of(&(mean * share)?, &model.params)?;
        match &mut sum {
            Some(sum) => sum.add(gradient)?,
            None => sum = Some(gradient),
        }
    }
    Ok((sum.context("a batch needs a pair")?, measured))
}

/// The pairs in a random order, all of them before any comes again.
struct Order<'a> {
    pairs: &'a [Preference],
    seed: u64,
    pass: u64,
    /// What is left of this pass.
    left: Vec<usize>,
}

impl<'a> Order<'a> {
    fn new(pairs: &'a [Preference], seed: u64) -> Self {
        Self { pairs, seed, pass: 0, left: Vec::new() }
    }

    fn next(&mut self) -> &'a Preference {
        if self.left.is_empty() {
            self.left = (0..self.pairs.len()).collect();
            self.left.shuffle(&mut rng(self.seed, Purpose::Preferences, self.pass, 0));
            self.pass += 1;
        }
        // There is always a pair: a set of preferences is never empty.
        &self.pairs[self.left.pop().unwrap_or(0)]
    }
}
