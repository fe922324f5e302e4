//! One training step: prompts, responses, rewards, update, record.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Drawn, Origin, log_probs_under};
use super::diagnostics::{Diagnosed, peak_memory_mb};
use super::shaping::Moments;
use super::{AdamW, AdamWConfig, KlControl, Schedule, Shaping, Spent, Update};
use crate::method::{Advantage, Method, Objective, Source};
use crate::mixture::Temperature;
use crate::models::{LanguageModel, Network};
use crate::nn::{Linear, Params};
use crate::ranks::Ranks;
use crate::record::StepRow;
use crate::rollout::Speculation;
use crate::target::Target;
use crate::tasks::{Prompt, Task};

/// The constants of a step, the same for every method of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// Prompts a step, and responses to each.
    pub prompts: usize,
    pub responses: usize,
    /// Parts that the gradient is summed over; its variance is measured between them.
    pub microbatches: usize,
    pub learning_rate: f64,
    pub warmup_steps: u64,
    #[serde(default)]
    pub schedule: Schedule,
    /// β of E\[r\] − β·KL(π_θ‖π_init) at the start.
    pub kl_coefficient: f64,
    #[serde(default)]
    pub kl_control: KlControl,
    pub max_gradient_norm: f64,
    #[serde(default)]
    pub shaping: Shaping,
    /// Of q, which responses are drawn from: q^(1/T). The weights know of it.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Draws the responses with drafts of the policy that are verified: the same law, other random numbers. None draws them a
    /// token a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
}

fn one() -> f64 {
    1.0
}

impl Default for StepConfig {
    /// That of the preset `micro`.
    fn default() -> Self {
        Self {
            prompts: 16,
            responses: 4,
            microbatches: 8,
            learning_rate: 3e-4,
            warmup_steps: 5,
            schedule: Schedule::Constant,
            kl_coefficient: 0.02,
            kl_control: KlControl::Fixed,
            max_gradient_norm: 1.0,
            shaping: Shaping::default(),
            temperature: 1.0,
            speculation: None,
        }
    }
}

/// Everything that changes while a method trains a policy.
pub struct Trainer<'a> {
    pub(super) task: &'a dyn Task,
    pub(super) method: Method,
    pub(super) config: StepConfig,
    seed: u64,
    pub policy: LanguageModel,
    /// π_init.
    reference: &'a Network,
    target: Option<&'a dyn Target>,
    pub(super) value_head: Option<Linear>,
    /// The policy's variables and the value head's.
    pub(super) params: Params,
    pub(super) optimizer: AdamW,
    pub(super) state: State,
    /// The processes that train together.
    pub(super) ranks: Ranks,
}

/// What a training carries from step to step besides variables and optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    pub step: u64,
    pub spent: Spent,
    pub rewards: Moments,
    /// β now.
    pub beta: f64,
}

impl StepConfig {
    /// The samples of a step of a method.
    pub fn samples(&self, method: &Method) -> usize {
        self.prompts * method.source.samples(self.responses)
    }

    /// # Errors
    /// Speculation for a method whose responses do not come from a mixture or a target: it has nothing to verify.
    pub fn check_method(&self, method: &Method) -> Result<()> {
        let verifies = method.source.needs_target();
        ensure!(
            self.speculation.is_none() || verifies,
            "{}: speculation has nothing to verify: the policy drafts, and the method draws from no mixture and no target; \
             leave `speculation` out of its step",
            method.name
        );
        Ok(())
    }

    /// # Errors
    /// A constant outside of its range; it is named.
    pub fn check(&self) -> Result<()> {
        for (name, x) in [
            ("learning_rate", self.learning_rate),
            ("kl_coefficient", self.kl_coefficient),
            ("shaping.clip", self.shaping.clip.unwrap_or_default()),
        ] {
            ensure!(x >= 0.0 && x.is_finite(), "{name} is a number from 0 up: {x}");
        }
        Temperature { mixture: self.temperature, ..Temperature::ONE }.check()?;
        ensure!(self.max_gradient_norm > 0.0, "max_gradient_norm is positive: {}", self.max_gradient_norm);
        if let KlControl::Adaptive { target, horizon } = self.kl_control {
            let least = 0.2 * (self.prompts * self.responses) as f64;
            ensure!(target > 0.0, "the target of the KL controller is positive: {target}");
            ensure!(horizon > least, "the horizon of the KL controller is more than {least} responses: {horizon}");
        }
        self.speculation.map_or(Ok(()), |speculation| speculation.check())
    }
}

impl State {
    /// All of it as f64, which holds whole numbers up to 2^53.
    pub fn numbers(&self) -> [f64; 10] {
        let Self { step, spent, rewards, beta } = *self;
        let Spent { samples, reward_calls, forward_flops, backward_flops, seconds } = spent;
        let Moments { count, mean, squares } = rewards;
        let whole = [step, samples, reward_calls].map(|n| n as f64);
        [whole[0], whole[1], whole[2], forward_flops, backward_flops, seconds, count, mean, squares, beta]
    }

    pub fn from_numbers(numbers: [f64; 10]) -> Self {
        let [step, samples, reward_calls, forward_flops, backward_flops, seconds, count, mean, squares, beta] = numbers;
        let [step, samples, reward_calls] = [step, samples, reward_calls].map(|n| n as u64);
        let spent = Spent { samples, reward_calls, forward_flops, backward_flops, seconds };
        Self { step, spent, rewards: Moments { count, mean, squares }, beta }
    }
}

impl<'a> Trainer<'a> {
    /// A trainer at step 0. `initial` is copied, without dropout in its adapters: the ratios of the update are those of the
    /// policy that drew. `reference` is π_init.
    ///
    /// # Errors
    /// A method whose choices do not fit each other, or that needs a target where there is none; prompts that do not
    /// divide into the microbatches.
    pub fn new(
        task: &'a dyn Task,
        method: Method,
        config: StepConfig,
        seed: u64,
        initial: &LanguageModel,
        reference: &'a Network,
        target: Option<&'a dyn Target>,
    ) -> Result<Self> {
        method.check()?;
        config.check()?;
        config.check_method(&method)?;
        ensure!(target.is_some() || !method.source.needs_target(), "{}: it draws from a target", method.name);
        let rows = config.prompts * config.responses;
        ensure!(
            rows > 0 && config.microbatches > 0 && config.prompts.is_multiple_of(config.microbatches),
            "{} prompts do not divide into {} microbatches",
            config.prompts,
            config.microbatches
        );
        if let Objective::Surrogate(surrogate) = method.objective {
            let grouped = surrogate.advantage != Advantage::LeaveOneOut;
            ensure!(
                !grouped || config.responses >= 2,
                "{}: an advantage relative to the group needs two responses a prompt",
                method.name
            );
        }
        ensure!(
            method.source != Source::Preferences || config.responses.is_multiple_of(2),
            "{}: a pair stands for two responses, so a prompt has an even number of them, not {}",
            method.name,
            config.responses
        );
        let policy = initial.without_dropout()?;
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
        let rewards = Moments::default();
        let state = State { step: 0, spent: Spent::default(), rewards, beta: config.kl_coefficient };
        let ranks = Ranks::alone();
        Ok(Self { task, method, config, seed, policy, reference, target, value_head, params, optimizer, state, ranks })
    }

    /// The trainer as one rank of several: each draws and scores the responses to its part of the prompts and takes its part
    /// of the microbatches, all of them make the same step. Every draw is that of one process alone; sums over
    /// microbatches are in another order, and of rewards that a target keeps each rank keeps its own.
    ///
    /// # Errors
    /// Microbatches that do not divide over the ranks.
    pub fn over(self, ranks: &Ranks) -> Result<Self> {
        let StepConfig { prompts, microbatches, .. } = self.config;
        ensure!(
            microbatches.is_multiple_of(ranks.size()),
            "{prompts} prompts in {microbatches} microbatches do not divide over {} ranks",
            ranks.size()
        );
        Ok(Self { ranks: ranks.clone(), ..self })
    }

    /// The number of steps done.
    pub fn step_count(&self) -> u64 {
        self.state.step
    }

    /// What the steps have cost so far.
    pub fn spent(&self) -> &Spent {
        &self.state.spent
    }

    /// The variables that are trained: the policy's, and the value head's where there is one.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Draws, scores, updates.
    ///
    /// # Errors
    /// A loss or a gradient that is not a number; the policy is then unchanged, but for the passes of PPO
    /// that came before.
    pub fn step(&mut self) -> Result<StepRow> {
        let batch = self.draw()?;
        self.update(&batch)
    }

    /// The samples of the next step, with rewards and log-probabilities.
    ///
    /// # Errors
    /// A task that has not what the method reads; what a model cannot read.
    pub fn draw(&mut self) -> Result<Batch> {
        let start = Instant::now();
        let policy = self.policy.frozen()?;
        let origin = Origin {
            task: self.task,
            method: &self.method,
            config: &self.config,
            seed: self.seed,
            step: self.state.step,
            policy: &policy,
            target: self.target,
            ranks: &self.ranks,
        };
        let prompts = origin.prompts();
        let own = || {
            let Drawn { samples, cost, speculation } = origin.samples(&prompts, self.ranks.part(prompts.len()))?;
            let mut batch = Batch { prompts, samples, cost, speculation, ..Batch::default() };
            batch.seconds_rollout = start.elapsed().as_secs_f64();
            self.score(&mut batch, &policy)?;
            Ok(batch)
        };
        let mut batch = self.ranks.agree(own())?;
        batch.exchange(&self.ranks)?;
        // A data set may have answers to some of its prompts only.
        ensure!(
            !batch.samples.is_empty(),
            "the task {} has nothing for {} prompts that the method {} reads",
            self.task.name(),
            batch.prompts.len(),
            self.method.name
        );
        let rewards: Vec<_> = batch.samples.iter().map(|s| (s.reward, s.tokens.len(), s.ended)).collect();
        let shaped = self.config.shaping.shape(&rewards, &mut self.state.rewards);
        batch.samples.iter_mut().zip(shaped).for_each(|(sample, shaped)| sample.shaped = shaped);
        batch.learn(&self.method, &self.config, self.state.beta, self.seed, self.state.step)?;
        Ok(batch)
    }

    /// Rewards, and the log-probabilities that are not known yet.
    fn score(&self, batch: &mut Batch, policy: &Network) -> Result<()> {
        if batch.samples.is_empty() {
            if self.reads_reference() && self.reference.is_spread() {
                // All ranks read at the same time: one without a response reads a prompt, for nothing.
                log_probs_under(self.reference, &[(&batch.prompts[0].tokens, &[0])])?;
            }
            return Ok(());
        }
        let start = Instant::now();
        let responses: Vec<(&Prompt, &[u32])> =
            batch.samples.iter().map(|sample| (&batch.prompts[sample.prompt], &sample.tokens[..])).collect();
        let rewards = self.task.rewards(&responses)?;
        batch.samples.iter_mut().zip(rewards).for_each(|(sample, reward)| sample.reward = reward);
        batch.seconds_reward = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let unknown = batch.samples.iter().any(|sample| sample.log_p.is_none());
        if unknown && self.method.objective.needs_returns() {
            let log_p = log_probs_under(policy, &batch.pairs())?;
            batch.samples.iter_mut().zip(log_p).for_each(|(sample, log_p)| sample.log_p = Some(log_p));
            batch.cost.forward_flops += 2.0 * policy.parameters() as f64 * tokens(&batch.pairs()) as f64;
        }
        if self.reads_reference() {
            let log_init = log_probs_under(self.reference, &batch.pairs())?;
            batch.samples.iter_mut().zip(log_init).for_each(|(sample, log_init)| sample.log_init = log_init);
        }
        batch.seconds_reference = start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Learns from a batch and counts the step.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn update(&mut self, batch: &Batch) -> Result<StepRow> {
        let start = Instant::now();
        let StepConfig { learning_rate, warmup_steps, schedule, .. } = self.config;
        let learning_rate = schedule.rate(self.state.step, warmup_steps, learning_rate);
        let update = self.learn(batch, learning_rate)?;
        // All ranks count the same seconds, for a budget may end the run.
        let seconds_update = self.ranks.exchange(start.elapsed().as_secs_f64())?.into_iter().fold(0.0, f64::max);
        let seconds = batch.seconds_rollout + batch.seconds_reward + batch.seconds_reference + seconds_update;
        let kl_coefficient = self.state.beta;
        let diagnosed = Diagnosed { method: &self.method, batch, update: update.as_ref() };
        let row = diagnosed.row();
        self.state.beta = self.config.kl_control.next(self.state.beta, row.q_kl_init, batch.samples.len());
        self.charge(batch, update.as_ref(), seconds_update);
        let spent = &self.state.spent;
        let row = StepRow {
            step: self.state.step as i64,
            samples: spent.samples as i64,
            reward_calls: spent.reward_calls as i64,
            flops_forward: spent.forward_flops,
            flops_backward: spent.backward_flops,
            seconds_charged: spent.seconds,
            learning_rate,
            kl_coefficient,
            seconds_update,
            seconds,
            peak_memory_mb: peak_memory_mb(),
            ..row
        };
        self.state.step += 1;
        Ok(row)
    }

    /// Whether π_init reads the responses: not where the divergence from it costs nothing.
    fn reads_reference(&self) -> bool {
        let free = self.config.kl_coefficient == 0.0 && self.config.kl_control == KlControl::Fixed;
        self.method.needs_reference() && !(free && self.method.objective.needs_returns())
    }

    fn charge(&mut self, batch: &Batch, update: Option<&Update>, seconds_update: f64) {
        let (rewards, reference) = (self.method.needs_rewards(), self.reads_reference());
        let flops_a_token = 2.0 * self.policy.network.parameters() as f64;
        let (trained, read) = update.map_or((0, 0), |update| (update.tokens_trained, update.tokens_read));
        let referenced = if reference { tokens(&batch.pairs()) } else { 0 };
        let spent = &mut self.state.spent;
        spent.samples += batch.samples.len() as u64;
        spent.reward_calls += batch.cost.reward_calls + if rewards { batch.samples.len() as u64 } else { 0 };
        spent.forward_flops += batch.cost.forward_flops + flops_a_token * (referenced + read + trained) as f64;
        spent.backward_flops += 2.0 * flops_a_token * trained as f64;
        spent.seconds += batch.seconds_rollout + seconds_update;
        spent.seconds += if rewards { batch.seconds_reward } else { 0.0 };
        spent.seconds += if reference { batch.seconds_reference } else { 0.0 };
    }
}

/// The number of tokens that a model reads of these: a prompt once for the responses that stand together.
fn tokens(pairs: &[(&[u32], &[u32])]) -> usize {
    let group = |group: &[(&[u32], &[u32])]| group[0].0.len() + group.iter().map(|(_, r)| r.len() - 1).sum::<usize>();
    pairs.chunk_by(|a, b| a.0 == b.0).map(group).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_goes_through_its_numbers() {
        let spent =
            Spent { samples: 1 << 40, reward_calls: 3, forward_flops: 1.5e15, backward_flops: 0.1, seconds: 1.0 / 3.0 };
        let rewards = Moments { count: 7.0, mean: 0.3, squares: 1e-17 };
        let state = State { step: 12, spent, rewards, beta: 0.02 };
        assert_eq!(State::from_numbers(state.numbers()), state);
    }
}
