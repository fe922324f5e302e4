//! One training step: prompts, rollout, reward, update, record.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::sequences::numbers;
use super::{AdamW, AdamWConfig, Gradient, Sequences};
use crate::method::{
    Method, Objective, Ppo, generalized_advantages, leave_one_out, maximum_likelihood_loss, policy_loss,
    reinforce_loss, value_loss, whiten,
};
use crate::models::{LanguageModel, Network};
use crate::nn::{Linear, Params};
use crate::record::StepRow;
use crate::rollout::{Response, Sampler};
use crate::seed::Purpose;
use crate::tasks::{Prompt, Split, Task};

use super::diagnostics::{Drawn, peak_memory_mb};

/// The constants of a step, the same for every method of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepConfig {
    /// Prompts a step, and responses to each.
    pub prompts: usize,
    pub responses: usize,
    /// Parts that the gradient is summed over; its variance is measured between them.
    pub microbatches: usize,
    pub learning_rate: f64,
    pub warmup_steps: u64,
    /// β of E\[r\] − β·KL(π_θ‖π_init).
    pub kl_coefficient: f64,
    pub max_gradient_norm: f64,
}

/// Everything that changes while a method trains a policy.
pub struct Trainer<'a> {
    task: &'a dyn Task,
    method: Method,
    config: StepConfig,
    seed: u64,
    pub policy: LanguageModel,
    /// π_init.
    reference: &'a Network,
    target: Option<&'a Network>,
    value_head: Option<Linear>,
    /// The policy's variables and the value head's.
    params: Params,
    optimizer: AdamW,
    step: u64,
}

/// What was drawn for one step, before the update.
struct Batch {
    prompts: Vec<Prompt>,
    responses: Vec<Response>,
    tokens: Vec<Vec<u32>>,
    rewards: Vec<f64>,
    /// log π_init of every token, one row a response.
    reference: Vec<Vec<f64>>,
}

/// What an update reports.
struct Update {
    loss: f64,
    norm: f64,
    variance: Option<f64>,
    /// log π_θ of every token as the first pass of the update computes it.
    log_probs: Vec<f64>,
    /// Treated weights, one row a response, where the objective has any.
    weights: Option<Vec<Vec<f64>>>,
    /// Tokens read forward and backward.
    tokens_trained: usize,
}

impl<'a> Trainer<'a> {
    /// A trainer at step 0. `initial` is copied.
    pub fn new(
        task: &'a dyn Task,
        method: Method,
        config: StepConfig,
        seed: u64,
        initial: &LanguageModel,
        reference: &'a Network,
        target: Option<&'a Network>,
    ) -> Result<Self> {
        let rows = config.prompts * config.responses;
        ensure!(
            rows > 0 && config.microbatches > 0 && config.prompts.is_multiple_of(config.microbatches),
            "{} prompts do not divide into {} microbatches",
            config.prompts,
            config.microbatches
        );
        let policy = initial.copy()?;
        let mut params = policy.params.clone();
        let mut value_head = None;
        if let Objective::Ppo(_) = method.objective {
            let width = policy.config.hidden_size();
            params.add_normal("value_head.weight", &[1, width], 1.0 / ((width + 1) as f32).sqrt(), seed)?;
            params.add_constant("value_head.bias", &[1], 0.0)?;
            let weights = params.weights(true);
            let weight = weights.get("value_head.weight", &[1, width])?;
            value_head = Some(Linear::new(weight, Some(weights.get("value_head.bias", &[1])?)));
        }
        let optimizer = AdamW::new(&params, AdamWConfig::default())?;
        Ok(Self { task, method, config, seed, policy, reference, target, value_head, params, optimizer, step: 0 })
    }

    /// The number of steps done.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// Responses drawn so far.
    pub fn samples(&self) -> u64 {
        self.step * (self.config.prompts * self.config.responses) as u64
    }

    pub(super) fn parts(&self) -> (&Params, &AdamW) {
        (&self.params, &self.optimizer)
    }

    pub(super) fn parts_mut(&mut self) -> (&Params, &mut AdamW, &mut u64) {
        (&self.params, &mut self.optimizer, &mut self.step)
    }

    /// Draws, scores, updates.
    ///
    /// # Errors
    /// A loss or a gradient that is not a number; the policy is then unchanged, but for the passes of PPO
    /// that came before.
    pub fn step(&mut self) -> Result<StepRow> {
        let start = Instant::now();
        let frozen = self.policy.frozen()?;
        let (prompts, responses) = self.draw(&frozen)?;
        let drawn_at = start.elapsed().as_secs_f64();

        let tokens: Vec<Vec<u32>> = responses.iter().map(Response::tokens).collect();
        let k = self.config.responses;
        let rewards: Vec<f64> =
            tokens.iter().enumerate().map(|(i, response)| self.task.reward(&prompts[i / k], response)).collect();
        let rewarded_at = start.elapsed().as_secs_f64();

        let all = Sequences::new(&pairs(&prompts, &tokens, k))?;
        let reference = all.by_response(&numbers(&all.log_probs(self.reference, &all.hidden(self.reference)?)?)?);
        let referenced_at = start.elapsed().as_secs_f64();

        let batch = Batch { prompts, responses, tokens, rewards, reference };
        let learning_rate =
            self.config.learning_rate * ((self.step + 1) as f64 / self.config.warmup_steps.max(1) as f64).min(1.0);
        let update = match self.method.objective {
            Objective::Reinforce => self.reinforce(&batch, learning_rate),
            Objective::MaximumLikelihood => self.maximum_likelihood(&batch, learning_rate),
            Objective::Ppo(ppo) => self.ppo(&batch, &ppo, learning_rate),
        }?;
        let updated_at = start.elapsed().as_secs_f64();

        let drawn =
            Drawn { weight: self.method.weight, responses: &batch.responses, weights: update.weights.as_deref() };
        let model_size = self.policy.params.count() as f64;
        let mixture = matches!(self.method.proposal, crate::rollout::Proposal::Mixture(_));
        let values = matches!(self.method.objective, Objective::Ppo(_));
        // The rollout, with two models for a mixture; the reference; PPO's old values.
        let passes = 2.0 + f64::from(u8::from(mixture)) + f64::from(u8::from(values));
        let forward = passes * all.read_count() as f64;
        let row = StepRow {
            step: self.step as i64,
            samples: self.samples() as i64 + batch.responses.len() as i64,
            tokens: all.token_count() as i64,
            loss: update.loss,
            gradient_norm: update.norm,
            gradient_variance: update.variance,
            learning_rate,
            log_prob_gap: drawn.gap(&update.log_probs),
            q_kl_init: drawn.kl_to_reference(&batch.reference),
            flops: 2.0 * model_size * (forward + 3.0 * update.tokens_trained as f64),
            seconds_rollout: drawn_at,
            seconds_reward: rewarded_at - drawn_at,
            seconds_reference: referenced_at - rewarded_at,
            seconds_update: updated_at - referenced_at,
            seconds: start.elapsed().as_secs_f64(),
            peak_memory_mb: peak_memory_mb(),
            ..drawn.row(&batch.rewards)
        };
        self.step += 1;
        Ok(row)
    }

    fn draw(&self, frozen: &Network) -> Result<(Vec<Prompt>, Vec<Response>)> {
        let first = (self.seed << 32) + self.step * self.config.prompts as u64;
        let prompts: Vec<Prompt> =
            (0..self.config.prompts as u64).map(|i| self.task.prompt(Split::Train, first + i)).collect();
        let ids: Vec<Vec<u32>> = prompts.iter().map(|p| p.tokens.clone()).collect();
        let sampler = Sampler {
            proposal: self.method.proposal,
            stop_tokens: self.task.stop_tokens(),
            max_response_tokens: self.task.max_response_tokens(),
            seed: self.seed,
            purpose: Purpose::Rollout,
            step: self.step,
            ..Default::default()
        };
        let responses = sampler.draw(frozen, self.target, &ids, self.config.responses)?;
        Ok((prompts, responses))
    }

    /// r − β(log π_θ − log π_init) of every response, less the mean of the others of its prompt, times w.
    fn reinforce(&mut self, batch: &Batch, learning_rate: f64) -> Result<Update> {
        let (log_p, log_q) = (policy_log_probs(batch)?, column(batch, |draw| draw.log_q));
        let returns: Vec<f64> = batch
            .rewards
            .iter()
            .zip(log_p.iter().zip(&batch.reference))
            .map(|(r, (p, reference))| r - self.config.kl_coefficient * log_ratio(p, reference))
            .collect();
        let advantages = leave_one_out(&returns, self.config.responses);
        let weights = self.method.weight.weights(&log_p, &log_q);
        let coefficients: Vec<Vec<f64>> =
            weights.iter().zip(&advantages).map(|(w, a)| w.iter().map(|w| w * a).collect()).collect();
        let update = self.pass(batch, learning_rate, |sequences, _, log_probs, rows| {
            reinforce_loss(log_probs, &coefficients[rows].concat(), sequences.lengths().len())
        })?;
        Ok(Update { weights: Some(weights), ..update })
    }

    fn maximum_likelihood(&mut self, batch: &Batch, learning_rate: f64) -> Result<Update> {
        self.pass(batch, learning_rate, |sequences, _, log_probs, _| {
            maximum_likelihood_loss(log_probs, sequences.lengths().len())
        })
    }

    fn ppo(&mut self, batch: &Batch, ppo: &Ppo, learning_rate: f64) -> Result<Update> {
        let value_head = self.value_head.clone().context("PPO has a value head")?;
        let value_of = |hidden: &Tensor| value_head.apply(hidden)?.squeeze(1);
        let old_log_probs = policy_log_probs(batch)?;
        let all = Sequences::new(&pairs(&batch.prompts, &batch.tokens, self.config.responses))?;
        let old_values = all.by_response(&numbers(&value_of(&all.hidden(&self.policy.frozen()?)?)?)?);
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        for (i, values) in old_values.iter().enumerate() {
            // A penalty for every token, and the reward with the last one.
            let ratios = old_log_probs[i].iter().zip(&batch.reference[i]);
            let mut rewards: Vec<f64> = ratios.map(|(p, r)| -self.config.kl_coefficient * (p - r)).collect();
            *rewards.last_mut().context("a response has tokens")? += batch.rewards[i];
            let (a, r) = generalized_advantages(&rewards, values, ppo.gae_lambda);
            advantages.extend(a);
            returns.push(r);
        }
        whiten(&mut advantages);
        let advantages = all.by_response(&advantages);
        let mut first: Option<Update> = None;
        for _ in 0..ppo.epochs {
            let update = self.pass(batch, learning_rate, |_, hidden, log_probs, rows| {
                let policy = policy_loss(
                    log_probs,
                    &old_log_probs[rows.clone()].concat(),
                    &advantages[rows.clone()].concat(),
                    ppo.clip,
                )?;
                let value = value_loss(
                    &value_of(hidden)?.to_dtype(log_probs.dtype())?,
                    &old_values[rows.clone()].concat(),
                    &returns[rows].concat(),
                    ppo.value_clip,
                )?;
                policy + (value * ppo.value_coefficient)?
            })?;
            let trained = first.as_ref().map_or(0, |u| u.tokens_trained) + update.tokens_trained;
            first = Some(Update { tokens_trained: trained, ..first.unwrap_or(update) });
        }
        first.context("PPO needs an epoch")
    }

    /// One pass over the batch: the mean gradient over microbatches, one optimizer step.
    /// `loss(sequences, hidden, log_probs, rows)` is the loss of the responses `rows`.
    fn pass(
        &mut self,
        batch: &Batch,
        learning_rate: f64,
        loss: impl Fn(&Sequences, &Tensor, &Tensor, std::ops::Range<usize>) -> candle_core::Result<Tensor>,
    ) -> Result<Update> {
        let k = self.config.responses;
        let size = batch.responses.len() / self.config.microbatches;
        let all = pairs(&batch.prompts, &batch.tokens, k);
        let mut gradient: Option<Gradient> = None;
        let (mut total, mut all_log_probs, mut tokens_trained) = (0.0, Vec::new(), 0);
        for start in (0..batch.responses.len()).step_by(size) {
            let rows = start..start + size;
            let sequences = Sequences::new(&all[rows.clone()])?;
            let batch = self.step * self.config.microbatches as u64 + (start / size) as u64;
            self.policy.set_dropout_batch(batch);
            let hidden = sequences.hidden(&self.policy.network)?;
            let log_probs = sequences.log_probs(&self.policy.network, &hidden)?;
            let loss = loss(&sequences, &hidden, &log_probs, rows)?;
            let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            ensure!(value.is_finite(), "the loss is not a number: {value}");
            let part = Gradient::of(&loss, &self.params)?;
            match &mut gradient {
                Some(sum) => sum.add(part)?,
                None => gradient = Some(part),
            }
            total += value;
            all_log_probs.extend(numbers(&log_probs)?);
            tokens_trained += sequences.read_count();
        }
        let mut gradient = gradient.context("a pass has a microbatch")?;
        let variance = gradient.into_mean()?;
        let norm = gradient.clip(self.config.max_gradient_norm)?;
        self.optimizer.step(&self.params, &gradient, learning_rate)?;
        Ok(Update {
            loss: total / self.config.microbatches as f64,
            norm,
            variance,
            log_probs: all_log_probs,
            weights: None,
            tokens_trained,
        })
    }
}

fn pairs<'b>(prompts: &'b [Prompt], responses: &'b [Vec<u32>], k: usize) -> Vec<(&'b [u32], &'b [u32])> {
    responses.iter().enumerate().map(|(i, r)| (&prompts[i / k].tokens[..], &r[..])).collect()
}

fn column(batch: &Batch, of: impl Fn(&crate::rollout::Draw) -> f64) -> Vec<Vec<f64>> {
    batch.responses.iter().map(|response| response.draws.iter().map(&of).collect()).collect()
}

fn policy_log_probs(batch: &Batch) -> Result<Vec<Vec<f64>>> {
    let known = batch.responses.iter().flat_map(|r| &r.draws).all(|draw| draw.log_p.is_some());
    ensure!(known, "this objective needs the policy's log-probabilities: its proposal must run the policy");
    Ok(column(batch, |draw| draw.log_p.unwrap_or(f64::NAN)))
}

fn log_ratio(log_p: &[f64], reference: &[f64]) -> f64 {
    log_p.iter().zip(reference).map(|(p, r)| p - r).sum()
}
