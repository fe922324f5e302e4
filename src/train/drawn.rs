//! Responses to training prompts, with their rewards: what targets are trained on.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::Spent;
use crate::models::Network;
use crate::progress::Progress;
use crate::rollout::{Proposal, Sampler};
use crate::seed::Purpose;
use crate::target::SequenceReward;
use crate::tasks::{Prompt, Split, Task};

/// Where the rewards of a target's training come from.
#[derive(Clone, Copy)]
pub enum TrainingReward<'a> {
    /// The task's true reward.
    True,
    /// A learned one, of prompt and response together.
    Learned(&'a SequenceReward),
}

impl TrainingReward<'_> {
    /// The rewards of (prompt, response) pairs, and the floating-point operations that they took.
    pub(super) fn of(&self, task: &dyn Task, pairs: &[(&Prompt, &[u32])]) -> Result<(Vec<f64>, f64)> {
        match self {
            TrainingReward::True => Ok((task.rewards(pairs)?, 0.0)),
            TrainingReward::Learned(reward) => {
                let sequences: Vec<Vec<u32>> =
                    pairs.iter().map(|(prompt, response)| [&prompt.tokens[..], response].concat()).collect();
                let (rewards, cost) = reward.scores(&sequences)?;
                Ok((rewards, cost.forward_flops))
            }
        }
    }
}

/// The first prompt that targets are trained on, for a seed: far from those of any run and of the embedded models.
const FIRST_SEED: u64 = 30_000;

/// Training prompts of a target's training: number `first` and the following.
pub(super) fn training_prompts(task: &dyn Task, seed: u64, first: u64, count: usize) -> Result<Vec<Prompt>> {
    ensure!(seed < 20_000, "a seed lies below 20000: {seed}");
    let first = ((FIRST_SEED + seed) << 32) + first;
    Ok((0..count as u64).map(|i| task.prompt(Split::Train, first + i)).collect())
}

/// One response.
pub(super) struct Drawn {
    /// Its prompt, by the place among the prompts.
    pub prompt: usize,
    pub tokens: Vec<u32>,
    pub reward: f64,
}

/// Prompts that are drawn for at once.
const BATCH: usize = 64;

/// `k` responses of the reference to each of the prompts, those of one prompt together, and what they have cost.
pub(super) fn draw_rewarded(
    reference: &Network,
    task: &dyn Task,
    reward: TrainingReward,
    prompts: &[Prompt],
    k: usize,
    seed: u64,
    label: &str,
) -> Result<(Vec<Drawn>, Spent)> {
    ensure!(!prompts.is_empty() && k > 0, "{label}: training needs a prompt and a response to it");
    let start = Instant::now();
    let progress = Progress::new(format!("{label}: responses"), (prompts.len() * k) as u64);
    let (mut all, mut spent) = (Vec::with_capacity(prompts.len() * k), Spent::default());
    for (batch, part) in prompts.chunks(BATCH).enumerate() {
        let ids: Vec<Vec<u32>> = part.iter().map(|prompt| prompt.tokens.clone()).collect();
        let rollout = sampler(task, Proposal::Policy, seed, batch as u64)?.rollout(reference, None, &ids, k)?;
        let tokens: Vec<Vec<u32>> = rollout.responses.iter().map(|response| response.tokens()).collect();
        let pairs: Vec<(&Prompt, &[u32])> = tokens.iter().enumerate().map(|(i, t)| (&part[i / k], &t[..])).collect();
        let (rewards, flops) = reward.of(task, &pairs)?;
        if let Some(bad) = rewards.iter().position(|reward| !reward.is_finite()) {
            bail!("{label}: the reward of response {bad} of batch {batch} is {}", rewards[bad]);
        }
        spent.samples += tokens.len() as u64;
        spent.reward_calls += tokens.len() as u64;
        spent.forward_flops += rollout.cost.forward_flops + flops;
        progress.inc(tokens.len() as u64);
        let drawn = tokens.into_iter().zip(rewards).enumerate();
        all.extend(drawn.map(|(i, (tokens, reward))| Drawn { prompt: batch * BATCH + i / k, tokens, reward }));
    }
    progress.finish();
    spent.seconds = start.elapsed().as_secs_f64();
    Ok((all, spent))
}

/// Responses that are drawn while a target is trained.
pub(super) fn sampler(task: &dyn Task, proposal: Proposal, seed: u64, step: u64) -> Result<Sampler<'_>> {
    Ok(Sampler { proposal, seed, purpose: Purpose::TargetTraining, step, ..Sampler::of(task)? })
}
