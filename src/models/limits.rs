//! What a model can read, and batches of it.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};

use super::Config;

/// The tokens that a model can read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub vocab_size: usize,
    pub max_positions: usize,
}

impl Limits {
    pub fn of(config: &Config) -> Self {
        Self { vocab_size: config.vocab_size(), max_positions: config.max_positions() }
    }

    /// # Errors
    /// An empty sequence, one that is longer than the model's positions, a token beyond the vocabulary.
    pub fn check(&self, tokens: &[u32]) -> Result<()> {
        ensure!(!tokens.is_empty(), "there are no tokens");
        ensure!(
            tokens.len() <= self.max_positions,
            "{} tokens do not fit the model's {} positions; shorten it, for example with keep_end",
            tokens.len(),
            self.max_positions
        );
        match tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            Some(token) => anyhow::bail!("token {token} is beyond the vocabulary of {}", self.vocab_size),
            None => Ok(()),
        }
    }

    /// The sequences as one batch `[B, T]` (u32), padded on the right with zeros, and their lengths.
    ///
    /// # Errors
    /// No sequence; as [`Limits::check`] for any of them, which is named by its number.
    pub fn batch(&self, sequences: &[&[u32]]) -> Result<(Tensor, Vec<usize>)> {
        ensure!(!sequences.is_empty(), "a batch needs a sequence");
        let (batch, time) = (sequences.len(), sequences.iter().map(|tokens| tokens.len()).max().unwrap_or(0));
        let mut ids = vec![0u32; batch * time];
        for (row, tokens) in sequences.iter().enumerate() {
            self.check(tokens).with_context(|| format!("sequence {row}"))?;
            ids[row * time..][..tokens.len()].copy_from_slice(tokens);
        }
        let ids = Tensor::from_vec(ids, (batch, time), &Device::Cpu)?;
        Ok((ids, sequences.iter().map(|tokens| tokens.len()).collect()))
    }
}

/// The rows of sequences in batches of similar lengths: the longest first, so that a batch that needs too much memory
/// fails at once. A batch has up to `tokens` tokens, padding included, and at least one row.
pub(super) fn batches(lengths: &[usize], tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| lengths[row]);
    let (mut rest, mut batches) = (&order[..], Vec::new());
    while let Some(&last) = rest.last() {
        let count = (tokens / lengths[last].max(1)).clamp(1, rest.len());
        let (before, rows) = rest.split_at(rest.len() - count);
        batches.push(rows.to_vec());
        rest = before;
    }
    batches
}
