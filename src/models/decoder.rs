//! A model that reads on where it stopped, for a batch that shrinks.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::Network;
use crate::nn::{self, KvCache};

/// A model, its cache, and the logits of the next token of every row.
pub struct Decoder<'a> {
    network: &'a Network,
    cache: KvCache,
    logits: Vec<f32>,
    vocabulary: usize,
    tokens_read: usize,
}

impl<'a> Decoder<'a> {
    /// Reads every prompt once and copies its state to its `k` rows, with room for `max_new` tokens more.
    pub fn prefill(network: &'a Network, prompts: &[Vec<u32>], k: usize, max_new: usize) -> Result<Self> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let ids: Vec<u32> =
            prompts.iter().flat_map(|p| p.iter().copied().chain(std::iter::repeat_n(0, longest - p.len()))).collect();
        let ids = Tensor::from_vec(ids, (prompts.len(), longest), &Device::Cpu)?;
        let mut cache = network.cache(prompts.len(), longest + max_new);
        let hidden = network.hidden(&ids, Some(&mut cache))?;
        cache.advance(prompts.iter().map(Vec::len));
        let copies = |i: usize| std::iter::repeat_n(i, k);
        let rows: Vec<usize> = (0..prompts.len()).flat_map(copies).collect();
        let last: Vec<u32> =
            prompts.iter().enumerate().flat_map(|(i, p)| copies(i * longest + p.len() - 1)).map(|i| i as u32).collect();
        let last = Tensor::from_vec(last, rows.len(), &Device::Cpu)?;
        let hidden = nn::select_rows(&hidden.flatten_to(1)?, &last)?;
        let logits = network.logits(&hidden)?;
        let vocabulary = logits.dim(1)?;
        let logits = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        let tokens_read = prompts.iter().map(Vec::len).sum();
        Ok(Self { network, cache: cache.select(&rows), logits, vocabulary, tokens_read })
    }

    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The logits at a place of the current batch.
    pub fn row(&self, place: usize) -> &[f32] {
        &self.logits[place * self.vocabulary..(place + 1) * self.vocabulary]
    }

    /// Drops all rows but those at `places` of the current batch.
    pub fn keep(&mut self, places: &[usize]) {
        if places.len() < self.cache.lengths().len() {
            self.cache = self.cache.select(places);
        }
    }

    /// Reads one token a row.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        let ids = Tensor::from_slice(tokens, (tokens.len(), 1), &Device::Cpu)?;
        let hidden = self.network.hidden(&ids, Some(&mut self.cache))?;
        self.cache.advance(std::iter::repeat_n(1, tokens.len()));
        let logits = self.network.logits(&hidden.flatten_to(1)?)?.flatten_all()?;
        self.logits = logits.to_dtype(DType::F32)?.to_vec1()?;
        self.tokens_read += tokens.len();
        Ok(())
    }

    /// Floating-point operations so far: 2 a parameter and token, padding left out.
    pub fn flops(&self) -> f64 {
        2.0 * self.network.parameters() as f64 * self.tokens_read as f64
    }
}
