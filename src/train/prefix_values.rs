//! Training of the values that a prefix scorer tilts by.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::drawn::{Drawn, draw_rewarded, training_prompts};
use super::sequences::numbers;
use super::{AdamW, AdamWConfig, Gradient, Schedule, Sequences, Spent, TrainingReward};
use crate::method::Loss;
use crate::metrics::mean;
use crate::models::{LanguageModel, Network};
use crate::progress::Progress;
use crate::record::record;
use crate::seed::{Purpose, rng};
use crate::target::PrefixValues;
use crate::tasks::{Prompt, Task};

/// The constants of a prefix scorer's training: AdamW with a linear warm-up and a cosine decay to zero, gradients clipped
/// to the norm 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrefixTraining {
    /// Training prompts, and responses to each. One prompt in eight is held out.
    pub prompts: usize,
    pub responses: usize,
    pub steps: usize,
    /// Tokens a step, drawn from those of all responses.
    pub batch: usize,
    pub learning_rate: f64,
    pub warmup_steps: usize,
    /// AdamW's. V is asked for every token of the vocabulary, and learned where π_ref goes: what keeps it small elsewhere is
    /// this.
    pub weight_decay: f64,
    /// Decides the prompts, the responses and the order of the tokens.
    pub seed: u64,
}

impl Default for PrefixTraining {
    /// That of the embedded world. The decay is the one of 0, 0.3, 1, 3 with the largest explained variance on the held-out
    /// prompts; without one the values of unlikely tokens mislead the target from β = 0.1 down.
    fn default() -> Self {
        Self {
            prompts: 8192,
            responses: 1,
            steps: 600,
            batch: 1024,
            learning_rate: 1e-2,
            warmup_steps: 20,
            weight_decay: 3.0,
            seed: 0,
        }
    }
}

record! {
    /// One step of a prefix scorer's training.
    pub struct PrefixStepRow {
        pub step: i64,
        /// The mean of (V(y≤t) − r(y))² over the step's tokens, before its update.
        pub loss: f64,
        /// 1 − loss / variance of the rewards over these tokens; 0 where all rewards are equal.
        pub explained_variance: f64,
        /// Before clipping.
        pub gradient_norm: f64,
        pub learning_rate: f64,
        pub seconds: f64,
    }
}

/// What [`train_prefix_values`] gives.
pub struct TrainedValues {
    pub values: PrefixValues,
    pub rows: Vec<PrefixStepRow>,
    /// 1 − mean squared error / variance over the tokens of the held-out prompts.
    pub held_out_explained_variance: f64,
    /// What drawing, rewards and training have cost; no held-out response is free.
    pub spent: Spent,
}

/// Draws responses from π_ref to training prompts and regresses V(y≤t) on the response's reward at every token (squared error): the
/// minimum is E\[r(y) | y≤t\] under π_ref. π_ref is not changed, so each response is read once and its hidden states,
/// 4 bytes times width a token, stay in memory.
///
/// **Source.** The loss of CD-FUDGE (arXiv:2310.17022).
///
/// **Cost.** `prompts · responses` samples and rewards; forward: drawing, and one reading of the responses; the steps
/// touch the head alone.
///
/// # Errors
/// Fewer than eight prompts, a batch of none; a reward or a loss that is not a number; what the models cannot read.
pub fn train_prefix_values(
    reference: &LanguageModel,
    task: &dyn Task,
    reward: TrainingReward,
    config: &PrefixTraining,
    label: &str,
) -> Result<TrainedValues> {
    ensure!(
        config.prompts >= HELD_OUT,
        "{label}: one prompt in {HELD_OUT} is held out, so {} are too few",
        config.prompts
    );
    ensure!(config.batch > 0, "{label}: a step needs a token");
    let network = reference.frozen()?;
    let prompts = training_prompts(task, config.seed, 0, config.prompts)?;
    let (drawn, mut spent) = draw_rewarded(&network, task, reward, &prompts, config.responses, config.seed, label)?;
    let start = Instant::now();
    let (held_out, learned): (Vec<&Drawn>, Vec<&Drawn>) =
        drawn.iter().partition(|drawn| drawn.prompt % HELD_OUT == HELD_OUT - 1);
    let learned = Tokens::read(&network, &prompts, &learned)?;
    let held_out = Tokens::read(&network, &prompts, &held_out)?;
    spent.forward_flops += 2.0 * network.parameters() as f64 * (learned.read + held_out.read) as f64;
    let values = PrefixValues::constant(reference, mean(&learned.rewards))?;
    let mut optimizer =
        AdamW::new(&values.params, AdamWConfig { weight_decay: config.weight_decay, ..Default::default() })?;
    let schedule = Schedule::Cosine { steps: config.steps as u64 };
    let progress = Progress::new(label, config.steps as u64);
    let mut rows = Vec::with_capacity(config.steps);
    for step in 0..config.steps {
        let start = Instant::now();
        let mut rng = rng(config.seed, Purpose::TargetTraining, step as u64, u64::MAX);
        let places: Vec<u32> = (0..config.batch).map(|_| rng.random_range(0..learned.ids.len()) as u32).collect();
        let batch = learned.at(&places)?;
        let predicted = values.of_tokens(&batch.hidden, &batch.ids)?;
        let loss = squared_error(&numbers(&predicted)?, &batch.rewards);
        let through = loss.through(&predicted)?;
        let mut gradient = Gradient::of(&through, &values.params).with_context(|| format!("{label}, step {step}"))?;
        let gradient_norm = gradient.clip(1.0)?;
        let learning_rate = schedule.rate(step as u64, config.warmup_steps as u64, config.learning_rate);
        optimizer.step(&values.params, &gradient, learning_rate)?;
        let explained_variance = explained(loss.value, &batch.rewards);
        progress.message(format!("loss {:.4}, explained {explained_variance:.2}", loss.value));
        progress.inc(1);
        rows.push(PrefixStepRow {
            step: step as i64,
            loss: loss.value,
            explained_variance,
            gradient_norm,
            learning_rate,
            seconds: start.elapsed().as_secs_f64(),
        });
    }
    progress.finish();
    // Two rows of C values a token: its own and the prefix's.
    let head = 2.0 * 2.0 * reference.config.hidden_size() as f64 * (config.steps * config.batch) as f64;
    spent.forward_flops += head;
    spent.backward_flops += head;
    spent.seconds += start.elapsed().as_secs_f64();
    let predicted = numbers(&values.of_tokens(&held_out.hidden, &held_out.ids)?)?;
    let held_out_explained_variance = explained(squared_error(&predicted, &held_out.rewards).value, &held_out.rewards);
    Ok(TrainedValues { values, rows, held_out_explained_variance, spent })
}

/// One prompt in so many tells how good the values are.
const HELD_OUT: usize = 8;

/// Response tokens, with what predicts them and the rewards of their responses.
struct Tokens {
    /// `[N, C]`, f32 on the CPU.
    hidden: Tensor,
    ids: Vec<u32>,
    rewards: Vec<f64>,
    /// The number of tokens that were read for it.
    read: usize,
}

impl Tokens {
    /// Responses that are read at once.
    const BATCH: usize = 128;

    fn read(network: &Network, prompts: &[Prompt], drawn: &[&Drawn]) -> Result<Self> {
        let (mut hidden, mut ids, mut rewards, mut read) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for part in drawn.chunks(Self::BATCH) {
            let pairs: Vec<(&[u32], &[u32])> =
                part.iter().map(|drawn| (&prompts[drawn.prompt].tokens[..], &drawn.tokens[..])).collect();
            let sequences = Sequences::new(&pairs)?;
            hidden.push(sequences.hidden(network)?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?);
            read += sequences.read_count();
            for drawn in part {
                ids.extend(&drawn.tokens);
                rewards.extend(std::iter::repeat_n(drawn.reward, drawn.tokens.len()));
            }
        }
        Ok(Self { hidden: Tensor::cat(&hidden, 0)?, ids, rewards, read })
    }

    fn at(&self, places: &[u32]) -> Result<Self> {
        Ok(Self {
            hidden: self.hidden.index_select(&Tensor::new(places, &Device::Cpu)?, 0)?,
            ids: places.iter().map(|&place| self.ids[place as usize]).collect(),
            rewards: places.iter().map(|&place| self.rewards[place as usize]).collect(),
            read: 0,
        })
    }
}

/// The mean of (v − r)².
fn squared_error(values: &[f64], rewards: &[f64]) -> Loss {
    let n = values.len() as f64;
    let errors = values.iter().zip(rewards).map(|(v, r)| v - r);
    Loss { value: errors.clone().map(|e| e * e).sum::<f64>() / n, derivatives: errors.map(|e| 2.0 * e / n).collect() }
}

fn explained(loss: f64, rewards: &[f64]) -> f64 {
    let center = mean(rewards);
    let variance = rewards.iter().map(|r| (r - center).powi(2)).sum::<f64>() / rewards.len() as f64;
    if variance > 0.0 { 1.0 - loss / variance } else { 0.0 }
}
