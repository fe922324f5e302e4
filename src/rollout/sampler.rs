//! From prompts to responses, a token a time.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rayon::prelude::*;

use super::stop::Watch;
use super::{Draw, Proposal, Response, StopStrings};
use crate::mixture::{self, Temperature, Truncation};
use crate::models::{Decoder, Network};
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::seed::{self, Purpose};
use crate::target::{Contexts, Cost, Target};
use crate::tasks::Task;

/// How responses are drawn: everything but the models and the prompts.
///
/// The default draws up to 128 tokens from the policy as it is and stops at nothing.
///
/// ```
/// use qstar::mixture::Truncation;
/// use qstar::rollout::Sampler;
/// let nucleus = Sampler { truncation: Truncation { top_p: Some(0.9), ..Truncation::NONE }, ..Default::default() };
/// let argmax = Sampler { truncation: Truncation::GREEDY, stop_tokens: &[0], ..Default::default() };
/// ```
#[derive(Debug, Clone)]
pub struct Sampler<'a> {
    pub proposal: Proposal,
    /// Of policy, target and q. Where q is the policy or the target alone, that model's times q's.
    pub temperature: Temperature,
    /// Of q, after temperature: of a mixture, not of its two models.
    pub truncation: Truncation,
    /// Each ends a response, as its last token.
    pub stop_tokens: &'a [u32],
    pub stop_strings: Option<StopStrings<'a>>,
    pub max_response_tokens: usize,
    /// A row's numbers are keyed by `(seed, purpose, step, row)`.
    pub seed: u64,
    pub purpose: Purpose,
    pub step: u64,
    /// The number of the first row: response j of prompt i is row `first_row + i·k + j`. Prompts split over several
    /// calls, or over ranks, draw what one call draws where each call's first row is the number of prompts before
    /// it, times k.
    pub first_row: u64,
    /// The ranks that draw at the same time, where their models' weights are spread over them: a rank that is done goes on
    /// reading until all are.
    pub in_step: Option<&'a Ranks>,
    /// Told of every token, and of the rate and the rows still going. How many tokens there will be is not known: a
    /// [`Progress`] with a total of 0 is right.
    pub progress: Option<&'a Progress>,
}

impl Default for Sampler<'_> {
    fn default() -> Self {
        Self {
            proposal: Proposal::Policy,
            temperature: Temperature::ONE,
            truncation: Truncation::NONE,
            stop_tokens: &[],
            stop_strings: None,
            max_response_tokens: 128,
            seed: 0,
            purpose: Purpose::Rollout,
            step: 0,
            first_row: 0,
            in_step: None,
            progress: None,
        }
    }
}

impl<'a> Sampler<'a> {
    /// Draws from the policy, and ends responses as the task does.
    ///
    /// # Errors
    /// A stop string of the task that is none.
    pub fn of(task: &'a dyn Task) -> Result<Self> {
        let strings = task.stop_strings();
        let stop_strings = (!strings.is_empty()).then(|| StopStrings::new(task.tokenizer(), strings)).transpose()?;
        Ok(Self {
            stop_tokens: task.stop_tokens(),
            stop_strings,
            max_response_tokens: task.max_response_tokens(),
            ..Default::default()
        })
    }
}

/// Responses, and what drawing them has cost.
#[derive(Debug, Clone)]
pub struct Rollout {
    pub responses: Vec<Response>,
    pub cost: Cost,
}

impl Sampler<'_> {
    /// The responses of a [`rollout`](Self::rollout).
    ///
    /// # Errors
    /// As there.
    pub fn draw(
        &self,
        policy: &Network,
        target: Option<&dyn Target>,
        prompts: &[Vec<u32>],
        k: usize,
    ) -> Result<Vec<Response>> {
        Ok(self.rollout(policy, target, prompts, k)?.responses)
    }

    /// `k` responses to each prompt (token ids); those of prompt i are `i·k .. (i+1)·k`.
    ///
    /// # Errors
    /// An empty prompt, one that leaves the model no positions for the response, a target that the proposal needs and
    /// does not get, different vocabularies, a temperature or truncation outside of its range, logits that are not
    /// numbers (the row is named).
    pub fn rollout(
        &self,
        policy: &Network,
        target: Option<&dyn Target>,
        prompts: &[Vec<u32>],
        k: usize,
    ) -> Result<Rollout> {
        // Inside the pool, so that its threads are not woken and waited for at every product.
        rayon::scope(|_| self.rollout_in_pool(policy, target, prompts, k))
    }

    fn rollout_in_pool(
        &self,
        policy: &Network,
        target: Option<&dyn Target>,
        prompts: &[Vec<u32>],
        k: usize,
    ) -> Result<Rollout> {
        self.temperature.check()?;
        self.truncation.check()?;
        let vocabulary = policy.vocabulary();
        let policy = (self.proposal != Proposal::Target).then_some(policy);
        let target = match self.proposal {
            Proposal::Policy => None,
            _ => Some(target.with_context(|| format!("the proposal {:?} needs a target model", self.proposal))?),
        };
        let positions = [("policy", policy.map(Network::max_positions)), ("target", target.map(Target::max_positions))];
        for (name, positions) in positions {
            positions.map_or(Ok(()), |positions| self.check_lengths(name, positions, prompts))?;
        }
        let rows = prompts.len() * k;
        if rows == 0 {
            return Ok(Rollout { responses: Vec::new(), cost: Cost::default() });
        }
        let read = |network| -> Result<Box<dyn Contexts + '_>> {
            Ok(Box::new(Decoder::prefill(network, prompts, k, self.max_response_tokens)?))
        };
        let mut policy = policy.map(read).transpose()?;
        let mut target = target.map(|target| target.read(prompts, k, self.max_response_tokens)).transpose()?;
        if let Some(target) = &target {
            ensure!(
                target.vocabulary() == vocabulary,
                "policy and target have vocabularies of different sizes, {vocabulary} and {}: they must share a tokenizer",
                target.vocabulary()
            );
        }
        let mut going: Vec<Row> = (0..rows).map(|row| self.row(row)).collect();
        let mut responses: Vec<Response> = (0..rows).map(|_| Response { draws: Vec::new(), ended: false }).collect();
        let (start, mut drawn) = (Instant::now(), 0);
        let cost = |models: [&Option<Box<dyn Contexts + '_>>; 2]| {
            let mut cost = Cost::default();
            models.into_iter().flatten().for_each(|contexts| cost += contexts.cost());
            cost
        };
        let mut cost_when_done = None;
        for position in 0..self.max_response_tokens {
            let uniforms: Vec<f64> = going.iter_mut().map(|row| row.rng.random()).collect();
            let draws = self.draw_tokens(policy.as_deref(), target.as_deref(), &going, &uniforms)?;
            drawn += draws.len();
            let mut places = Vec::with_capacity(going.len());
            for (place, (row, draw)) in going.iter_mut().zip(draws).enumerate() {
                let ended = row.ends(self, draw.token)?;
                let response = &mut responses[row.place];
                response.draws.push(draw);
                response.ended = ended;
                if !ended {
                    places.push(place);
                }
            }
            if let Some(progress) = self.progress {
                progress.inc(going.len() as u64);
                progress.message(message(drawn, start.elapsed().as_secs_f64(), places.len(), rows));
            }
            if position + 1 == self.max_response_tokens || self.all_are_done(places.is_empty())? {
                break;
            }
            going.retain(|row| !responses[row.place].ended);
            let mut tokens: Vec<u32> = going.iter().map(|row| responses[row.place].draws[position].token).collect();
            if places.is_empty() {
                // For the other ranks' sake, and not charged: any row, and any token.
                cost_when_done.get_or_insert_with(|| cost([&policy, &target]));
                (places, tokens) = (vec![0], vec![0]);
            }
            let tokens: Vec<&[u32]> = tokens.chunks(1).collect();
            for contexts in [&mut policy, &mut target].into_iter().flatten() {
                contexts.keep(&places);
                contexts.feed(&tokens)?;
            }
        }
        let cost = cost_when_done.unwrap_or_else(|| cost([&policy, &target]));
        Ok(Rollout { responses, cost })
    }

    /// Whether this rank is done, and those that draw at the same time.
    fn all_are_done(&self, done: bool) -> Result<bool> {
        match self.in_step {
            None => Ok(done),
            Some(ranks) => Ok(ranks.exchange(done)?.into_iter().all(|done| done)),
        }
    }

    /// Every prompt must leave room for the longest response.
    pub(super) fn check_lengths(&self, model: &str, positions: usize, prompts: &[Vec<u32>]) -> Result<()> {
        let limit = self.max_response_tokens;
        for (i, length) in prompts.iter().map(Vec::len).enumerate() {
            ensure!(length > 0, "prompt {i} is empty: a model needs a token to continue");
            if length + limit <= positions {
                continue;
            }
            let ways = [
                (limit < positions).then(|| format!("shorten the prompt to {} tokens", positions - limit)),
                (length < positions).then(|| format!("lower max_response_tokens to {}", positions - length)),
            ];
            let ways: Vec<String> = ways.into_iter().flatten().collect();
            let both = "shorten the prompt and lower max_response_tokens".to_string();
            bail!(
                "prompt {i} has {length} tokens and its response may have {limit}, but the {model} has {positions} \
                 positions: {}",
                if ways.is_empty() { both } else { ways.join(", or ") }
            );
        }
        Ok(())
    }

    pub(super) fn row(&self, place: usize) -> Row<'_> {
        let number = self.first_row + place as u64;
        let rng = seed::rng(self.seed, self.purpose, self.step, number);
        Row { place, number, rng, watch: self.stop_strings.as_ref().map(StopStrings::watch) }
    }

    /// The next token of every row that is still going.
    fn draw_tokens(
        &self,
        policy: Option<&dyn Contexts>,
        target: Option<&dyn Contexts>,
        rows: &[Row],
        uniforms: &[f64],
    ) -> Result<Vec<Draw>> {
        let draw = |place: usize| {
            self.draw_token(policy.map(|d| d.row(place)), target.map(|d| d.row(place)), uniforms[place])
                .with_context(|| format!("row {}", rows[place].number))
        };
        (0..uniforms.len()).into_par_iter().map(draw).collect()
    }

    fn draw_token(&self, policy: Option<&[f32]>, target: Option<&[f32]>, uniform: f64) -> Result<Draw> {
        match (self.proposal, policy, target) {
            (Proposal::Mixture(rule), Some(p), Some(t)) => {
                let temperature = &self.temperature;
                let drawn = mixture::draw_truncated(p, t, &rule, temperature, &self.truncation, uniform)?;
                let at_1 = |log_prob: f64, temperature: f64, row: &[f32]| {
                    if temperature == 1.0 { Ok(log_prob) } else { mixture::log_prob(row, drawn.token) }
                };
                Ok(Draw {
                    token: drawn.token,
                    log_q: drawn.log_q,
                    log_kept: drawn.log_kept,
                    log_p: Some(at_1(drawn.log_p, temperature.policy, p)?),
                    log_t: Some(at_1(drawn.log_t, temperature.target, t)?),
                    mixture: Some(drawn.solution),
                })
            }
            (Proposal::Policy, Some(row), _) => {
                let (draw, log_p) = self.draw_alone(row, self.temperature.policy, uniform)?;
                Ok(Draw { log_p: Some(log_p), ..draw })
            }
            (Proposal::Target, _, Some(row)) => {
                let (draw, log_t) = self.draw_alone(row, self.temperature.target, uniform)?;
                Ok(Draw { log_t: Some(log_t), ..draw })
            }
            _ => bail!("the proposal {:?} needs a model that was not run", self.proposal),
        }
    }

    /// A token from one model, and its log-probability at temperature 1.
    fn draw_alone(&self, logits: &[f32], own_temperature: f64, uniform: f64) -> Result<(Draw, f64)> {
        let temperature = own_temperature * self.temperature.mixture;
        let drawn = mixture::draw_softmax_truncated(logits, temperature, &self.truncation, uniform)?;
        let log_prob = match temperature {
            1.0 => drawn.log_q + drawn.log_kept,
            _ => mixture::log_prob(logits, drawn.token)?,
        };
        let (token, log_q, log_kept) = (drawn.token, drawn.log_q, drawn.log_kept);
        Ok((Draw { token, log_q, log_kept, log_p: None, log_t: None, mixture: None }, log_prob))
    }
}

/// A response that is still going.
pub(super) struct Row<'a> {
    /// Its place among the responses of this call, and its number among all rows.
    pub place: usize,
    pub number: u64,
    pub rng: rand_chacha::ChaCha8Rng,
    watch: Option<Watch<'a>>,
}

impl Row<'_> {
    /// Whether the response ends with `token`.
    pub fn ends(&mut self, sampler: &Sampler, token: u32) -> Result<bool> {
        if sampler.stop_tokens.contains(&token) {
            return Ok(true);
        }
        match &mut self.watch {
            Some(watch) => watch.push(token).with_context(|| format!("row {}", self.number)),
            None => Ok(false),
        }
    }
}

fn message(tokens: usize, seconds: f64, going: usize, rows: usize) -> String {
    let rate = tokens as f64 / seconds.max(1e-9);
    format!("{tokens} tokens, {rate:.0} a second, {going} of {rows} rows going")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_of_tokens_rate_and_rows() {
        assert_eq!(message(300, 2.0, 5, 8), "300 tokens, 150 a second, 5 of 8 rows going");
    }
}
