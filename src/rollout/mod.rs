//! Drawing responses from a proposal q.
//!
//! Every row has a generator of its own, so a response does not depend on the batch that it is
//! drawn in. Rows that have ended leave the batch.

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::mixture::{self, Rule, Solution, Temperature};
use crate::models::Network;
use crate::nn::KvCache;
use crate::seed::{self, Purpose};

/// From which distribution responses are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposal {
    /// The policy π_θ itself (α = 1); the target is not run.
    Policy,
    /// The target π_t (α = 0); the policy is not run.
    Target,
    /// q = π_θ^α π_t^(1−α) / Z, with α chosen anew for every token.
    Mixture(Rule),
}

/// One drawn token. Log-probabilities are natural, of the whole vocabulary, at temperature 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    pub token: u32,
    /// Under the distribution that it was drawn from.
    pub log_q: f64,
    /// Under the policy, where the policy was run.
    pub log_p: Option<f64>,
    /// Under the target, where the target was run.
    pub log_t: Option<f64>,
    /// α and the diagnostics of the mixture, where there was one.
    pub mixture: Option<Solution>,
}

/// One response, the token that ended it included.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub draws: Vec<Draw>,
    /// Whether it ended by itself; otherwise it was cut at the limit.
    pub ended: bool,
}

impl Response {
    pub fn tokens(&self) -> Vec<u32> {
        self.draws.iter().map(|draw| draw.token).collect()
    }
}

/// How responses are drawn: everything but the models and the prompts.
#[derive(Debug, Clone)]
pub struct Sampler<'a> {
    pub proposal: Proposal,
    pub stop_tokens: &'a [u32],
    pub max_response_tokens: usize,
    pub seed: u64,
    pub purpose: Purpose,
    pub step: u64,
}

impl Sampler<'_> {
    /// `k` responses to each prompt (token ids); those of prompt i are `i·k .. (i+1)·k`.
    ///
    /// # Errors
    /// An empty prompt, a target that the proposal needs and does not get, different vocabularies,
    /// logits that are not numbers (the row is named).
    pub fn draw(
        &self,
        policy: &Network,
        target: Option<&Network>,
        prompts: &[Vec<u32>],
        k: usize,
    ) -> Result<Vec<Response>> {
        ensure!(prompts.iter().all(|p| !p.is_empty()), "a prompt is empty: a model needs a token to continue");
        ensure!(
            target.is_some() || self.proposal == Proposal::Policy,
            "the proposal {:?} needs a target model",
            self.proposal
        );
        let rows = prompts.len() * k;
        let mut policy = match self.proposal {
            Proposal::Target => None,
            _ => Some(Decoder::prefill(policy, prompts, k, self.max_response_tokens)?),
        };
        let mut target = match self.proposal {
            Proposal::Policy => None,
            _ => target.map(|t| Decoder::prefill(t, prompts, k, self.max_response_tokens)).transpose()?,
        };
        let mut responses: Vec<Response> = (0..rows).map(|_| Response { draws: Vec::new(), ended: false }).collect();
        let mut rngs: Vec<_> = (0..rows).map(|row| seed::rng(self.seed, self.purpose, self.step, row as u64)).collect();
        // The row that each place of the shrinking batch belongs to.
        let mut active: Vec<usize> = (0..rows).collect();
        for position in 0..self.max_response_tokens {
            let uniforms: Vec<f64> = active.iter().map(|&row| rngs[row].random()).collect();
            let draws = self.draw_tokens(policy.as_ref(), target.as_ref(), &uniforms)?;
            let mut going = Vec::with_capacity(active.len());
            for (place, (&row, draw)) in active.iter().zip(draws).enumerate() {
                responses[row].ended = self.stop_tokens.contains(&draw.token);
                responses[row].draws.push(draw);
                if !responses[row].ended {
                    going.push(place);
                }
            }
            if going.is_empty() || position + 1 == self.max_response_tokens {
                break;
            }
            active = going.iter().map(|&place| active[place]).collect();
            let tokens: Vec<u32> = active.iter().map(|&row| responses[row].draws[position].token).collect();
            for decoder in [&mut policy, &mut target].into_iter().flatten() {
                decoder.keep(&going);
                decoder.feed(&tokens)?;
            }
        }
        Ok(responses)
    }

    fn draw_tokens(&self, policy: Option<&Decoder>, target: Option<&Decoder>, uniforms: &[f64]) -> Result<Vec<Draw>> {
        let vocabulary = policy.or(target).map_or(0, |decoder| decoder.vocabulary);
        ensure!(
            target.is_none_or(|t| t.vocabulary == vocabulary),
            "policy and target have vocabularies of different sizes: they must share a tokenizer"
        );
        fn row_of<'a>(decoder: Option<&'a Decoder>, row: usize) -> Option<&'a [f32]> {
            decoder.map(|d| &d.logits[row * d.vocabulary..(row + 1) * d.vocabulary])
        }
        let draw = |row: usize| -> Result<Draw> {
            match (row_of(policy, row), row_of(target, row), self.proposal) {
                (Some(p), Some(t), Proposal::Mixture(rule)) => draw_mixture(p, t, &rule, uniforms[row]),
                (Some(p), ..) => {
                    let (token, log_q) = mixture::draw_softmax(p, 1.0, uniforms[row])?;
                    Ok(Draw { token, log_q, log_p: Some(log_q), log_t: None, mixture: None })
                }
                (None, Some(t), _) => {
                    let (token, log_q) = mixture::draw_softmax(t, 1.0, uniforms[row])?;
                    Ok(Draw { token, log_q, log_p: None, log_t: Some(log_q), mixture: None })
                }
                (None, None, _) => anyhow::bail!("no model was run"),
            }
        };
        (0..uniforms.len())
            .into_par_iter()
            .map(|row| draw(row).with_context(|| format!("row {row} of the batch")))
            .collect()
    }
}

/// A token from q, with everything known of it.
fn draw_mixture(policy: &[f32], target: &[f32], rule: &Rule, uniform: f64) -> Result<Draw> {
    let drawn = mixture::draw(policy, target, rule, &Temperature::ONE, uniform)?;
    Ok(Draw {
        token: drawn.token,
        log_q: drawn.log_q,
        log_p: Some(drawn.log_p),
        log_t: Some(drawn.log_t),
        mixture: Some(drawn.solution),
    })
}

/// A model, its cache, and the logits of the next token of every row.
struct Decoder<'a> {
    network: &'a Network,
    cache: KvCache,
    logits: Vec<f32>,
    vocabulary: usize,
}

impl<'a> Decoder<'a> {
    /// Reads every prompt once and copies its state to its `k` rows.
    fn prefill(network: &'a Network, prompts: &[Vec<u32>], k: usize, max_new: usize) -> Result<Self> {
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
        let hidden = hidden.flatten_to(1)?.index_select(&last, 0)?;
        let logits = network.logits(&hidden)?;
        let vocabulary = logits.dim(1)?;
        Ok(Self {
            network,
            cache: cache.select(&rows),
            logits: logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?,
            vocabulary,
        })
    }

    /// Drops all rows but those at `places` of the current batch.
    fn keep(&mut self, places: &[usize]) {
        if places.len() < self.cache.lengths().len() {
            self.cache = self.cache.select(places);
        }
    }

    /// Reads one token a row.
    fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        let ids = Tensor::from_slice(tokens, (tokens.len(), 1), &Device::Cpu)?;
        let hidden = self.network.hidden(&ids, Some(&mut self.cache))?;
        self.cache.advance(std::iter::repeat_n(1, tokens.len()));
        let logits = self.network.logits(&hidden.flatten_to(1)?)?.flatten_all()?;
        self.logits = logits.to_dtype(DType::F32)?.to_vec1()?;
        Ok(())
    }
}
