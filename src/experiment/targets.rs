//! Targets in a world: one in the expert's place, a reward that is learned, what each target's own responses are worth.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::World;
use super::cache::{damaged, kept};
use crate::metrics::t_interval;
use crate::models::{Head, RewardModel, Source, load_reward_model, save_reward_folder};
use crate::record::record;
use crate::reward::{Preference, PreferenceEvaluation, Preferences, evaluate_preferences};
use crate::rollout::{Proposal, Sampler};
use crate::seed::Purpose;
use crate::target::{Cost, Target};
use crate::tasks::{Prompt, Split, Task};
use crate::train::{ALGORITHM, BradleyTerry, train_reward_model};

/// A world's learned reward.
pub struct LearnedReward {
    pub model: RewardModel,
    /// On [`HELD_OUT_PAIRS`] pairs for held-out prompts.
    pub evaluation: PreferenceEvaluation,
}

/// Pairs of prompts of the test split that a learned reward is measured on.
pub const HELD_OUT_PAIRS: u64 = 1_000;

/// The training of a learned reward. Where the task has so many pairs, every one is seen once.
const REWARD: BradleyTerry =
    BradleyTerry { steps: 400, batch: 32, microbatch: 32, learning_rate: 5e-4, warmup_steps: 20, seed: 0 };

/// The first prompt of its pairs: far from those of any run, of the embedded models and of the targets' training.
const FIRST_PAIR: u64 = 20_261 << 32;

impl World {
    /// The same world with another target than the expert.
    pub fn with_target(mut self, target: impl Target + 'static) -> Self {
        self.models.target = Arc::new(target);
        self
    }

    /// A reward model on a copy of π_init's layers, from the task's preferences alone: trained once, then kept in
    /// `data/cache`.
    ///
    /// # Errors
    /// A task without preferences; a cached model that is damaged: remove its folder, it is made again.
    pub fn reward_model(&self, data: &Path) -> Result<LearnedReward> {
        let task = &*self.task;
        let key = format!("{}{}{ALGORITHM}{REWARD:?}", task.identity(), self.models.initial.digest()?);
        let folder = kept(data, &format!("{}-reward", task.name()), &key, |folder| {
            let model = RewardModel::on(&self.models.initial.whole()?, REWARD.seed)?;
            let pairs = (REWARD.steps * REWARD.batch) as u64;
            let preferences = preferences(task, &model, Split::Train, FIRST_PAIR, pairs)?;
            train_reward_model(&model, &REWARD, &format!("{}: reward model (once)", task.name()), &preferences)?;
            save_reward_folder(&model, folder)
        })?;
        let model =
            load_reward_model(&Source::Folder(folder.clone()), Head::Stored).with_context(|| damaged(&folder))?;
        let held_out = preferences(task, &model, Split::Test, 0, HELD_OUT_PAIRS)?;
        let evaluation = evaluate_preferences(&model, &held_out)?;
        Ok(LearnedReward { model, evaluation })
    }
}

/// A pair for each of `count` prompts, or of all there are; prompts without one are passed over.
fn preferences(task: &dyn Task, model: &RewardModel, split: Split, first: u64, count: u64) -> Result<Preferences> {
    let count = task.size(split).map_or(count, |size| size.min(count));
    let pair = |i: u64| {
        let prompt = task.prompt(split, first + i);
        let pair = task.preference(&prompt, 0)?;
        let whole = |response: Vec<u32>| [&prompt.tokens[..], &response].concat();
        Some(Preference::new(whole(pair.chosen), whole(pair.rejected)).keep_end(&model.network))
    };
    let pairs: Vec<Preference> = (0..count).filter_map(pair).collect();
    ensure!(!pairs.is_empty(), "the task {} has no preferences", task.name());
    Preferences::new(pairs)
}

record! {
    /// What a target says by itself, at temperature 1, to held-out prompts, and what a token of it costs.
    pub struct TargetRow {
        pub target: String,
        /// Mean true reward and its t-interval of 95 %, one response to a prompt.
        pub reward: f64,
        pub reward_low: f64,
        pub reward_high: f64,
        /// Tokens a response, and the share of responses that ended by themselves.
        pub length: f64,
        pub ended: f64,
        /// For a drawn token, prompts included: floating-point operations, rewards computed, rewards known from before,
        /// wall time.
        pub flops: f64,
        pub reward_calls: f64,
        pub reward_hits: f64,
        pub microseconds: f64,
    }
}

/// Measures targets on the first `prompts` held-out prompts; all draw with the same numbers.
///
/// # Errors
/// What a target cannot read.
pub fn measure_targets(world: &World, targets: &[(&str, &dyn Target)], prompts: u64) -> Result<Vec<TargetRow>> {
    let task = &*world.task;
    let prompts: Vec<Prompt> = (0..prompts).map(|i| task.prompt(Split::Test, i)).collect();
    let policy = world.models.initial.frozen()?;
    let measure = |&(name, target): &(&str, &dyn Target)| {
        let (mut cost, mut rewards, mut tokens, mut ended) = (Cost::default(), Vec::new(), 0, 0);
        let start = Instant::now();
        for (batch, prompts) in prompts.chunks(BATCH).enumerate() {
            let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
            let rollout = held_out(task, Proposal::Target, batch as u64)?.rollout(&policy, Some(target), &ids, 1)?;
            cost += rollout.cost;
            let responses: Vec<Vec<u32>> = rollout.responses.iter().map(|response| response.tokens()).collect();
            let pairs: Vec<(&Prompt, &[u32])> =
                prompts.iter().zip(responses.iter().map(|tokens| &tokens[..])).collect();
            rewards.extend(task.rewards(&pairs)?);
            for response in &rollout.responses {
                tokens += response.draws.len();
                ended += usize::from(response.ended);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let (n, tokens) = (rewards.len() as f64, tokens as f64);
        let interval = t_interval(&rewards, 0.95)?;
        Ok(TargetRow {
            target: name.to_string(),
            reward: interval.mean,
            reward_low: interval.low,
            reward_high: interval.high,
            length: tokens / n,
            ended: ended as f64 / n,
            flops: cost.forward_flops / tokens,
            reward_calls: cost.reward_calls as f64 / tokens,
            reward_hits: cost.reward_hits as f64 / tokens,
            microseconds: 1e6 * seconds / tokens,
        })
    };
    targets.iter().map(measure).collect()
}

/// Responses drawn at once.
const BATCH: usize = 64;

/// Responses to held-out prompts at temperature 1; `step` tells batches and rounds apart.
pub(super) fn held_out(task: &dyn Task, proposal: Proposal, step: u64) -> Result<Sampler<'_>> {
    Ok(Sampler { proposal, purpose: Purpose::Evaluate, step, ..Sampler::of(task)? })
}
