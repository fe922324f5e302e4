//! A reward model that reads texts.

use anyhow::{Result, anyhow, ensure};
use tokenizers::Tokenizer;

use crate::models::{Head, RewardModel, Source, load_reward_model};

/// A reward model with its tokenizer.
pub struct TextReward {
    pub model: RewardModel,
    pub tokenizer: Tokenizer,
}

impl TextReward {
    /// From a folder or the hub: the weights with their own head, and `tokenizer.json`, without its truncation and padding.
    ///
    /// # Errors
    /// A file that is missing or not what it should be; a tokenizer with more ids than the model.
    pub fn read(source: &Source) -> Result<Self> {
        let path = source.file("tokenizer.json")?;
        let tokenizer = Tokenizer::from_file(&path).map_err(|e| anyhow!("{}: {e}", path.display()))?;
        Self::new(load_reward_model(source, Head::Stored)?, tokenizer)
            .map_err(|error| error.context(source.to_string()))
    }

    /// # Errors
    /// A tokenizer with more ids than the model.
    pub fn new(model: RewardModel, mut tokenizer: Tokenizer) -> Result<Self> {
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| anyhow!("{e}"))?;
        let (ids, rows) = (tokenizer.get_vocab_size(true), model.config.vocab_size());
        ensure!(ids <= rows, "the tokenizer has {ids} ids, the reward model {rows}");
        Ok(Self { model, tokenizer })
    }

    /// The tokens of a text, with the special ones, shortened to the model's positions: the end is kept.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, true).map_err(|e| anyhow!("{e}"))?;
        Ok(self.model.network.keep_end(encoding.get_ids()))
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
