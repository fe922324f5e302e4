//! A reward of whole token sequences, as a target asks for it.

use anyhow::{Context, Result, ensure};

use super::Cost;
use crate::models::RewardModel;

type Score = dyn Fn(&[Vec<u32>]) -> Result<Vec<f64>> + Send + Sync;

/// From token sequences (prompt and response, or a part of it) to rewards: a reward model, or any function.
pub struct SequenceReward {
    score: Box<Score>,
    identity: String,
    /// The tokens that it knows, where it is a model.
    vocabulary: Option<usize>,
    max_positions: usize,
    parameters: usize,
}

impl SequenceReward {
    /// A reward model's scores. Shares the model's memory.
    ///
    /// # Errors
    /// What building its network fails of.
    pub fn learned(model: &RewardModel) -> Result<Self> {
        let shared = RewardModel::from_params(model.config.clone(), model.params.clone())?;
        Ok(Self {
            identity: format!("reward model {}", model.params.digest()?),
            vocabulary: Some(model.config.vocab_size()),
            max_positions: model.config.max_positions(),
            parameters: model.params.count(),
            score: Box::new(move |sequences| shared.scores(sequences)),
        })
    }

    /// Any function that gives every sequence a reward, whatever stands beside it. `name` must say all that decides its
    /// numbers: runs are told apart by it.
    pub fn of(
        name: impl Into<String>,
        score: impl Fn(&[Vec<u32>]) -> Result<Vec<f64>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            score: Box::new(score),
            identity: name.into(),
            vocabulary: None,
            max_positions: usize::MAX,
            parameters: 0,
        }
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The number of tokens that it can read.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// # Errors
    /// A reward model of another vocabulary than the policy's.
    pub fn check_vocabulary(&self, size: usize) -> Result<()> {
        let own = self.vocabulary.unwrap_or(size);
        ensure!(
            own == size,
            "the reward model reads a vocabulary of {own} tokens, the policy writes one of {size}: they must share a tokenizer"
        );
        Ok(())
    }

    /// The reward of every sequence, and what it has cost.
    ///
    /// # Errors
    /// Those of the model; another number of rewards than of sequences; a reward that is not finite.
    pub fn scores(&self, sequences: &[Vec<u32>]) -> Result<(Vec<f64>, Cost)> {
        if sequences.is_empty() {
            return Ok((Vec::new(), Cost::default()));
        }
        let rewards = (self.score)(sequences).with_context(|| self.identity.clone())?;
        ensure!(
            rewards.len() == sequences.len(),
            "{}: {} rewards for {} sequences",
            self.identity,
            rewards.len(),
            sequences.len()
        );
        for (row, reward) in rewards.iter().enumerate() {
            ensure!(reward.is_finite(), "{}: the reward of sequence {row} is {reward}", self.identity);
        }
        let tokens: usize = sequences.iter().map(Vec::len).sum();
        let forward_flops = 2.0 * self.parameters as f64 * tokens as f64;
        Ok((rewards, Cost { forward_flops, reward_calls: sequences.len() as u64, reward_hits: 0 }))
    }
}
