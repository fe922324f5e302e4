//! π_θ on held-out prompts: its own responses at temperature 1, with a generator of their own, so
//! that evaluating changes no training draw.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{HeldOut, Sequences, Spent};
use crate::method::KlEstimator;
use crate::metrics::{mean, sd};
use crate::models::Network;
use crate::nn;
use crate::ranks::Ranks;
use crate::record::{EvaluationRow, SampleRow};
use crate::rollout::{Response, Sampler};
use crate::seed::Purpose;
use crate::tasks::{Prompt, Task};

/// Responses drawn and measured at once.
const BATCH: usize = 64;

/// One evaluation: the row of means, and every response.
pub struct Evaluation {
    pub row: EvaluationRow,
    pub samples: Vec<SampleRow>,
}

/// Evaluates `policy` on held-out prompts (which, and how many of them), one response to each. `step` and `spent` say where
/// the training stands. The ranks of a training share the prompts; each gets the whole.
pub fn evaluate(
    task: &dyn Task,
    policy: &Network,
    reference: &Network,
    (held_out, prompts): (HeldOut, usize),
    seed: u64,
    (step, spent): (u64, &Spent),
    ranks: &Ranks,
) -> Result<Evaluation> {
    let start = Instant::now();
    if let Some(size) = held_out.size(task) {
        ensure!(
            prompts as u64 <= size,
            "{}: there are {size} held-out prompts, and evaluation_prompts asks for {prompts}",
            task.name()
        );
    }
    ensure!(
        !policy.is_spread() || (prompts + BATCH - 1) % BATCH + 1 >= ranks.size(),
        "evaluation_prompts = {prompts} leaves a last batch (of {BATCH}) with fewer prompts than there are ranks"
    );
    let prompts: Vec<Prompt> = (0..prompts as u64).map(|i| held_out.prompt(task, i)).collect();
    let own = |(batch, prompts): (usize, &[Prompt])| {
        let own = ranks.part(prompts.len());
        let seed = seed.wrapping_add((batch as u64) << 32);
        let (first_row, in_step) = (own.start as u64, policy.is_spread().then_some(ranks));
        let purpose = Purpose::Evaluate;
        let sampler = Sampler { seed, purpose, step, first_row, in_step, ..Sampler::of(task)? };
        share(task, &sampler, policy, reference, &prompts[own])
    };
    let own: Result<Vec<_>> = prompts.chunks(BATCH).enumerate().map(own).collect();
    let shares = ranks.exchange(ranks.agree(own)?)?;
    let mut measured = Measured::default();
    let mut rows = Vec::with_capacity(prompts.len());
    for batch in 0..prompts.len().div_ceil(BATCH) {
        for share in &shares {
            measured.add(&share[batch].0);
            rows.extend_from_slice(&share[batch].1);
        }
    }
    let rewards: Vec<f64> = rows.iter().map(|row| row.reward).collect();
    let n = rows.len() as f64;
    let row = EvaluationRow {
        step: step as i64,
        samples: spent.samples as i64,
        reward_calls: spent.reward_calls as i64,
        flops: spent.forward_flops + spent.backward_flops,
        seconds_charged: spent.seconds,
        reward: mean(&rewards),
        reward_sd: sd(&rewards),
        kl: measured.kl / n,
        kl_k1: measured.estimates[0] / n,
        kl_k2: measured.estimates[1] / n,
        kl_k3: measured.estimates[2] / n,
        entropy: measured.entropy / measured.tokens,
        distinct_1: measured.unigrams.len() as f64 / measured.tokens,
        distinct_2: measured.bigrams.len() as f64 / measured.bigram_count.max(1.0),
        length: measured.tokens / n,
        ended: rows.iter().filter(|row| row.ended).count() as f64 / n,
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok(Evaluation { row, samples: rows })
}

/// Responses to some of the prompts, and what is measured of them.
fn share(
    task: &dyn Task,
    sampler: &Sampler,
    policy: &Network,
    reference: &Network,
    prompts: &[Prompt],
) -> Result<(Measured, Vec<SampleRow>)> {
    if prompts.is_empty() {
        return Ok(Default::default());
    }
    let ids: Vec<Vec<u32>> = prompts.iter().map(|p| p.tokens.clone()).collect();
    let responses = sampler.draw(policy, None, &ids, 1)?;
    let tokens: Vec<Vec<u32>> = responses.iter().map(Response::tokens).collect();
    let measured = Measured::of(&ids, &tokens, policy, reference)?;
    let pairs: Vec<(&Prompt, &[u32])> = prompts.iter().zip(tokens.iter().map(|tokens| &tokens[..])).collect();
    let rewards = task.rewards(&pairs)?;
    let row = |((response, reward), (prompt, tokens)): ((&Response, f64), (&Prompt, &[u32]))| SampleRow {
        step: sampler.step as i64,
        index: prompt.index as i64,
        family: prompt.family.to_string(),
        prompt: prompt.text.clone(),
        response: text(task, tokens),
        reward,
        ended: response.ended,
    };
    Ok((measured, responses.iter().zip(rewards).zip(pairs).map(row).collect()))
}

/// Sums over responses.
#[derive(Default, Serialize, Deserialize)]
struct Measured {
    kl: f64,
    /// k1, k2, k3.
    estimates: [f64; 3],
    entropy: f64,
    tokens: f64,
    unigrams: HashSet<u32>,
    bigrams: HashSet<(u32, u32)>,
    bigram_count: f64,
}

impl Measured {
    fn of(prompts: &[Vec<u32>], tokens: &[Vec<u32>], policy: &Network, reference: &Network) -> Result<Self> {
        let pairs: Vec<_> = prompts.iter().zip(tokens).map(|(p, r)| (&p[..], &r[..])).collect();
        let sequences = Sequences::new(&pairs)?;
        let (own, init) = (sequences.hidden(policy)?, sequences.hidden(reference)?);
        let (own, init) = (policy.logits(&own)?, reference.logits(&init)?);
        let flat: Vec<u32> = tokens.concat();
        let mut measured = Self {
            kl: nn::kl_to(&own, &init)?.iter().sum(),
            entropy: nn::entropies(&own)?.iter().sum(),
            tokens: flat.len() as f64,
            ..Self::default()
        };
        let log_probs = nn::log_probs_of(&own, &flat)?;
        let reference = nn::log_probs_of(&init, &flat)?;
        for (p, r) in log_probs.iter().zip(&reference) {
            for (sum, estimator) in measured.estimates.iter_mut().zip(KlEstimator::ALL) {
                *sum += estimator.of(*p, *r);
            }
        }
        for response in tokens {
            measured.unigrams.extend(response);
            measured.bigrams.extend(response.windows(2).map(|w| (w[0], w[1])));
            measured.bigram_count += response.len().saturating_sub(1) as f64;
        }
        Ok(measured)
    }

    fn add(&mut self, other: &Self) {
        self.kl += other.kl;
        self.estimates.iter_mut().zip(other.estimates).for_each(|(sum, x)| *sum += x);
        self.entropy += other.entropy;
        self.tokens += other.tokens;
        self.unigrams.extend(&other.unigrams);
        self.bigrams.extend(&other.bigrams);
        self.bigram_count += other.bigram_count;
    }
}

/// The text of a response without the tokens that end it.
fn text(task: &dyn Task, tokens: &[u32]) -> String {
    let kept: Vec<u32> = tokens.iter().copied().filter(|id| !task.stop_tokens().contains(id)).collect();
    task.tokenizer().decode(&kept, false).unwrap_or_else(|e| format!("<not decodable: {e}>"))
}
