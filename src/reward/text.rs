//! A reward model that reads texts.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::models::{Head, RewardModel, Source, Vocabulary, load_reward_model};

/// A reward model with its tokenizer.
pub struct TextReward {
    pub model: RewardModel,
    tokenizer: Tokenizer,
    /// Longer texts lose their beginning.
    max_tokens: usize,
}

/// What `qstar train-reward` notes beside the weights.
#[derive(Deserialize)]
struct Account {
    max_tokens: Option<usize>,
}

/// Its file.
const ACCOUNT: &str = "training.json";

impl TextReward {
    /// From a folder or the hub: the weights with their own head, and `tokenizer.json`. Texts are cut to as many tokens as the
    /// model was trained on, where `training.json` says so, else to its positions.
    ///
    /// # Errors
    /// A file that is missing or not what it should be; a tokenizer with more ids than the model.
    pub fn read(source: &Source) -> Result<Self> {
        let vocabulary = Vocabulary::read(source)?;
        let reward = Self::new(load_reward_model(source, Head::Stored)?, vocabulary);
        let reward = reward.with_context(|| source.to_string())?;
        let Some(path) = source.file_if_there(ACCOUNT)? else { return Ok(reward) };
        let read = |path: &Path| -> Result<Account> { Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?) };
        let account = read(&path).with_context(|| format!("{}: not an account of a training", path.display()))?;
        let max_tokens = account.max_tokens.unwrap_or(reward.max_tokens).min(reward.max_tokens);
        Ok(Self { max_tokens, ..reward })
    }

    /// # Errors
    /// A tokenizer with more ids than the model.
    pub fn new(model: RewardModel, vocabulary: Vocabulary) -> Result<Self> {
        let (ids, rows) = (vocabulary.size(), model.config.vocab_size());
        ensure!(ids <= rows, "the tokenizer has {ids} ids, the reward model {rows}");
        let max_tokens = model.config.max_positions();
        Ok(Self { model, tokenizer: vocabulary.tokenizer, max_tokens })
    }

    /// All that decides its scores.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn identity(&self) -> Result<String> {
        let tokenizer = self.tokenizer.to_string(false).map_err(|e| anyhow!("{e}"))?;
        Ok(format!("{} {:?} {} {tokenizer}", self.model.params.digest()?, self.model.config, self.max_tokens))
    }

    /// The tokens of a text, with the special ones; what is too long keeps its end.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, true).map_err(|e| anyhow!("a text cannot be tokenized: {e}"))?;
        Ok(self.model.network.keep_last(encoding.get_ids(), self.max_tokens))
    }

    /// The scores of whole texts (prompt and response), in nats of preference.
    ///
    /// # Errors
    /// Those of the tokenizer; a text without tokens.
    pub fn scores(&self, texts: &[String]) -> Result<Vec<f64>> {
        let tokens: Vec<Vec<u32>> = texts.iter().map(|text| self.tokens(text)).collect::<Result<_>>()?;
        self.model.scores(&tokens)
    }
}
