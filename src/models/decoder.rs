//! A model that reads on where it stopped, for a batch that shrinks.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};

use super::Network;
use crate::nn::{self, KvCache};

/// A model, its cache, and the logits behind the tokens that were read last.
pub struct Decoder<'a> {
    network: &'a Network,
    cache: KvCache,
    logits: Vec<f32>,
    /// Where the logits of each row begin, counted in tokens, and where the last row's end.
    begins: Vec<usize>,
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
        let begins = (0..=rows.len()).collect();
        Ok(Self { network, cache: cache.select(&rows), logits, begins, vocabulary, tokens_read })
    }

    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The logits behind the last token of the row at a place of the current batch.
    pub fn row(&self, place: usize) -> &[f32] {
        self.logits_at(self.begins[place + 1] - 1)
    }

    /// The logits behind token `j` of those that the row at a place read last.
    pub fn row_behind(&self, place: usize, j: usize) -> &[f32] {
        self.logits_at(self.begins[place] + j)
    }

    fn logits_at(&self, token: usize) -> &[f32] {
        &self.logits[token * self.vocabulary..(token + 1) * self.vocabulary]
    }

    /// The batch of the rows at `places` of the current one, in that order; a row may be left out or repeated.
    pub fn keep(&mut self, places: &[usize]) {
        if self.cache.stays(places) {
            self.cache.take_over(places);
        } else {
            self.cache = self.cache.select(places);
        }
    }

    /// Reads some tokens a row, all at once: none for some rows, but one for any.
    pub fn feed(&mut self, tokens: &[&[u32]]) -> Result<()> {
        let longest = tokens.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let padded = |tokens: &&[u32]| {
            let padding = std::iter::repeat_n(0, longest - tokens.len());
            tokens.iter().copied().chain(padding).collect::<Vec<u32>>()
        };
        let ids = Tensor::from_vec(tokens.iter().flat_map(padded).collect(), (tokens.len(), longest), &Device::Cpu)?;
        let hidden = self.network.hidden(&ids, Some(&mut self.cache))?;
        self.cache.advance(tokens.iter().map(|tokens| tokens.len()));
        let mut hidden = hidden.flatten_to(1)?;
        if tokens.iter().any(|tokens| tokens.len() < longest) {
            let real =
                |(row, tokens): (usize, &&[u32])| (row * longest..row * longest + tokens.len()).map(|i| i as u32);
            let real: Vec<u32> = tokens.iter().enumerate().flat_map(real).collect();
            hidden = nn::select_rows(&hidden, &Tensor::new(real, &Device::Cpu)?)?;
        }
        self.logits = self.network.logits(&hidden)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        self.begins.clear();
        self.begins.push(0);
        let mut end = 0;
        self.begins.extend(tokens.iter().map(|tokens| {
            end += tokens.len();
            end
        }));
        self.tokens_read += end;
        Ok(())
    }

    /// Forgets the last `by` tokens of every row.
    pub fn retract(&mut self, by: &[usize]) {
        self.cache.retract(by);
    }

    /// Floating-point operations so far: 2 a parameter and token, padding left out.
    pub fn flops(&self) -> f64 {
        2.0 * self.network.parameters() as f64 * self.tokens_read as f64
    }
}
