//! A policy that is trained on the best of its own responses.

use std::cell::Cell;
use std::time::Instant;

use anyhow::{Result, ensure};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::drawn::{Drawn, draw_rewarded, training_prompts};
use super::{Spent, Supervised, TrainingReward, train_supervised};
use crate::metrics::mean;
use crate::models::LanguageModel;
use crate::seed::{Purpose, rng};
use crate::target::Expert;
use crate::tasks::Task;

/// Which responses a [`train_conditional`] keeps, by their rewards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Of every prompt's responses this share, rounded up: the best; of equal ones the first drawn.
    Share(f64),
    /// Those of all prompts whose reward is at least this.
    From(f64),
}

/// The constants of a [`train_conditional`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Conditional {
    /// Training prompts, and responses to each.
    pub prompts: usize,
    pub responses: usize,
    pub keep: Keep,
    pub training: Supervised,
    /// Decides the prompts, the responses and their order in training.
    pub seed: u64,
}

impl Default for Conditional {
    /// That of the embedded world.
    fn default() -> Self {
        let training = Supervised { steps: 300, batch: 32, learning_rate: 5e-4, warmup_steps: 10 };
        Self { prompts: 1024, responses: 8, keep: Keep::Share(0.25), training, seed: 0 }
    }
}

/// What [`train_conditional`] gives.
pub struct TrainedConditional {
    pub model: LanguageModel,
    /// The mean reward of all responses, and of those that were kept.
    pub drawn_reward: f64,
    pub kept_reward: f64,
    pub kept: usize,
    /// Nats a token over the last tenth of the training.
    pub loss: f64,
    pub spent: Spent,
}

impl TrainedConditional {
    /// The model as a target: one forward pass a token.
    pub fn target(&self) -> Result<Expert> {
        Expert::named("conditional", &self.model)
    }
}

/// Draws responses from π_ref, keeps the best and trains a copy of π_ref on them by maximum likelihood: an estimate of
/// π_ref(y | the reward is high).
///
/// **Source.** One round of RAFT (Dong et al. 2023, arXiv:2304.06767).
///
/// **Bias.** A share is kept of *every* prompt, of those that π_ref never solves as well; more passes over few responses
/// learn them by heart.
///
/// **Cost.** `prompts · responses` samples and rewards, drawing, and a supervised training.
///
/// # Errors
/// A share outside of (0, 1]; a threshold that no response reaches; a loss that is not a number.
pub fn train_conditional(
    reference: &LanguageModel,
    task: &dyn Task,
    reward: TrainingReward,
    config: &Conditional,
    label: &str,
) -> Result<TrainedConditional> {
    if let Keep::Share(share) = config.keep {
        ensure!(share > 0.0 && share <= 1.0, "{label}: the share of responses to keep lies in (0, 1]: {share}");
    }
    let prompts = training_prompts(task, config.seed, 0, config.prompts)?;
    let network = reference.frozen()?;
    let (drawn, mut spent) = draw_rewarded(&network, task, reward, &prompts, config.responses, config.seed, label)?;
    let kept = best(&drawn, config.responses, config.keep);
    let rewards = |drawn: &mut dyn Iterator<Item = &Drawn>| mean(&drawn.map(|d| d.reward).collect::<Vec<_>>());
    let drawn_reward = rewards(&mut drawn.iter());
    ensure!(!kept.is_empty(), "{label}: no response has a reward of {:?}; their mean is {drawn_reward}", config.keep);
    let kept_reward = rewards(&mut kept.iter().copied());
    let start = Instant::now();
    let order = order(config.seed, kept.len(), config.training.steps * config.training.batch);
    let model = reference.copy()?;
    let read = Cell::new(0);
    let loss = train_supervised(&model, &config.training, label, |i| {
        let drawn = kept[order[i as usize]];
        let prompt = &prompts[drawn.prompt].tokens;
        read.set(read.get() + prompt.len() + drawn.tokens.len() - 1);
        (prompt.clone(), drawn.tokens.clone())
    })?;
    let forward = 2.0 * network.parameters() as f64 * read.get() as f64;
    spent.forward_flops += forward;
    spent.backward_flops += 2.0 * forward;
    spent.seconds += start.elapsed().as_secs_f64();
    Ok(TrainedConditional { model, drawn_reward, kept_reward, kept: kept.len(), loss, spent })
}

/// The responses to learn from, `k` of each prompt standing together.
fn best(drawn: &[Drawn], k: usize, keep: Keep) -> Vec<&Drawn> {
    match keep {
        Keep::From(least) => drawn.iter().filter(|drawn| drawn.reward >= least).collect(),
        Keep::Share(share) => {
            let count = ((share * k as f64).ceil() as usize).clamp(1, k);
            drawn
                .chunks(k)
                .flat_map(|of_prompt| {
                    let mut sorted: Vec<&Drawn> = of_prompt.iter().collect();
                    sorted.sort_by(|a, b| b.reward.total_cmp(&a.reward));
                    sorted.truncate(count);
                    sorted
                })
                .collect()
        }
    }
}

/// `length` places among `count`: pass after pass over all of them, each in a new order.
fn order(seed: u64, count: usize, length: usize) -> Vec<usize> {
    let mut order = Vec::with_capacity(length + count);
    for pass in 0..length.div_ceil(count) {
        let mut places: Vec<usize> = (0..count).collect();
        places.shuffle(&mut rng(seed, Purpose::TargetTraining, pass as u64, u64::MAX - 1));
        order.extend(places);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_every_prompt_are_kept() {
        let rewards = [0.1, 0.9, 0.9, 0.2, 0.0, 0.0, 0.0, 0.5];
        let drawn: Vec<Drawn> =
            (0..8).map(|i| Drawn { prompt: i / 4, tokens: vec![i as u32], reward: rewards[i] }).collect();
        let kept = |keep| best(&drawn, 4, keep).iter().map(|drawn| drawn.tokens[0]).collect::<Vec<_>>();
        assert_eq!(kept(Keep::Share(0.25)), [1, 7]);
        assert_eq!(kept(Keep::Share(0.3)), [1, 2, 7, 4], "rounded up, of equal ones the first");
        assert_eq!(kept(Keep::Share(1.0)).len(), 8);
        assert_eq!(kept(Keep::From(0.5)), [1, 2, 7]);
        assert!(kept(Keep::From(1.0)).is_empty());
    }
}
