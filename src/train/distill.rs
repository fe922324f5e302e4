//! A small model that stands for a dear target.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::drawn::{sampler, training_prompts};
use super::{AdamW, AdamWConfig, Gradient, Schedule, Sequences, Spent};
use crate::mixture::Rule;
use crate::models::{LanguageModel, Network};
use crate::progress::Progress;
use crate::record::record;
use crate::rollout::Proposal;
use crate::target::{Target, log_probs_along};
use crate::tasks::Task;

/// The constants of a distillation: AdamW (weight decay 0.01) with a linear warm-up and a cosine decay to zero, gradients
/// clipped to the norm 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    pub steps: usize,
    /// Training prompts a step, and responses to each.
    pub prompts: usize,
    pub responses: usize,
    /// From what the contexts are drawn: best from where the draft will be asked.
    pub contexts: Proposal,
    pub learning_rate: f64,
    pub warmup_steps: usize,
    /// Decides the prompts and the responses.
    pub seed: u64,
}

impl Default for Distillation {
    /// That of the embedded world.
    fn default() -> Self {
        let contexts = Proposal::Mixture(Rule::Q_STAR);
        Self { steps: 300, prompts: 32, responses: 2, contexts, learning_rate: 3e-3, warmup_steps: 10, seed: 0 }
    }
}

record! {
    /// One step of a distillation.
    pub struct DistillationStepRow {
        pub step: i64,
        /// The mean of KL(π_t‖draft) over the step's contexts, in nats, before its update.
        pub kl: f64,
        /// Before clipping.
        pub gradient_norm: f64,
        pub learning_rate: f64,
        pub seconds: f64,
    }
}

/// What [`distill`] gives.
pub struct Distilled {
    pub rows: Vec<DistillationStepRow>,
    /// The target's reward calls and passes among them.
    pub spent: Spent,
}

/// Trains `draft` on the target's next-token distributions: minimises the mean of KL(π_t‖draft) over contexts that
/// `policy` and target draw. As a target: [`Expert::named`](crate::target::Expert::named).
///
/// **Source.** Distillation with soft labels (Hinton et al. 2015, arXiv:1503.02531) on drawn contexts, as for the draft models
/// of speculative sampling (DistillSpec, Zhou et al. 2023, arXiv:2310.08461).
///
/// **Cost.** The target at every context, twice where it draws as well.
///
/// # Errors
/// A draft of another vocabulary than the target's; a loss that is not a number; what the models cannot read.
pub fn distill(
    target: &dyn Target,
    policy: &Network,
    draft: &LanguageModel,
    task: &dyn Task,
    config: &Distillation,
    label: &str,
) -> Result<Distilled> {
    ensure!(config.prompts > 0 && config.responses > 0, "{label}: a step needs a prompt and a response to it");
    let start = Instant::now();
    let mut spent = Spent::default();
    let mut optimizer = AdamW::new(&draft.params, AdamWConfig { weight_decay: 0.01, ..Default::default() })?;
    let schedule = Schedule::Cosine { steps: config.steps as u64 };
    let progress = Progress::new(label, config.steps as u64);
    let mut rows = Vec::with_capacity(config.steps);
    for step in 0..config.steps {
        let start = Instant::now();
        let first = (step * config.prompts) as u64;
        let prompts: Vec<Vec<u32>> = training_prompts(task, config.seed, first, config.prompts)?
            .into_iter()
            .map(|prompt| prompt.tokens)
            .collect();
        let sampler = sampler(task, config.contexts, config.seed, step as u64)?;
        let rollout = sampler.rollout(policy, Some(target), &prompts, config.responses)?;
        let responses: Vec<Vec<u32>> = rollout.responses.iter().map(|response| response.tokens()).collect();
        let prompts: Vec<Vec<u32>> =
            prompts.into_iter().flat_map(|prompt| std::iter::repeat_n(prompt, config.responses)).collect();
        let along = log_probs_along(target, &prompts, &responses)?;
        let mut cost = rollout.cost;
        cost += along.cost;
        let pairs: Vec<(&[u32], &[u32])> = prompts.iter().zip(&responses).map(|(p, r)| (&p[..], &r[..])).collect();
        let sequences = Sequences::new(&pairs)?;
        let (through, kl) = soft_loss(draft, &sequences, &along.log_probs)?;
        let mut gradient = Gradient::of(&through, &draft.params).with_context(|| format!("{label}, step {step}"))?;
        let gradient_norm = gradient.clip(1.0)?;
        let learning_rate = schedule.rate(step as u64, config.warmup_steps as u64, config.learning_rate);
        optimizer.step(&draft.params, &gradient, learning_rate)?;
        let forward = 2.0 * draft.network.parameters() as f64 * sequences.read_count() as f64;
        spent.samples += responses.len() as u64;
        spent.reward_calls += cost.reward_calls;
        spent.forward_flops += cost.forward_flops + forward;
        spent.backward_flops += 2.0 * forward;
        progress.message(format!("KL {kl:.3}"));
        progress.inc(1);
        let seconds = start.elapsed().as_secs_f64();
        rows.push(DistillationStepRow { step: step as i64, kl, gradient_norm, learning_rate, seconds });
    }
    progress.finish();
    spent.seconds = start.elapsed().as_secs_f64();
    Ok(Distilled { rows, spent })
}

/// A number with the gradient of the mean KL(π_t‖draft), and that divergence.
fn soft_loss(draft: &LanguageModel, sequences: &Sequences, log_t: &[Vec<f64>]) -> Result<(Tensor, f64)> {
    let logits = draft.network.logits(&sequences.hidden(&draft.network)?)?;
    let size = logits.dim(1)?;
    let own = log_t.first().map_or(size, Vec::len);
    ensure!(
        own == size,
        "the draft has a vocabulary of {size} tokens, the target one of {own}: they must share a tokenizer"
    );
    let n = log_t.len() as f64;
    let rows: Vec<Vec<f64>> = logits.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2()?;
    let (mut kl, mut derivatives) = (0.0, Vec::with_capacity(log_t.len() * size));
    for (row, log_t) in rows.iter().zip(log_t) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_total = max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
        for (x, log_t) in row.iter().zip(log_t) {
            let (log_s, t) = (x - log_total, log_t.exp());
            kl += if t > 0.0 { t * (log_t - log_s) } else { 0.0 };
            derivatives.push((log_s.exp() - t) / n);
        }
    }
    ensure!(kl.is_finite(), "the divergence of the draft from the target is {kl}");
    let derivatives = Tensor::from_vec(derivatives, (log_t.len(), size), &Device::Cpu)?;
    let derivatives = derivatives.to_dtype(logits.dtype())?.to_device(logits.device())?;
    Ok(((logits * derivatives)?.sum_all()?, kl / n))
}
