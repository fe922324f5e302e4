//! Experiment 4: where speculative sampling pays. Pairs of models, speed-ups measured and predicted, and what a wrong fallback
//! does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use polars::prelude::{DataFrame, DataType};
use rand::Rng;
use rand_distr::StandardNormal;

use super::World;
use super::targets::held_out;
use crate::metrics::{mean, quantile};
use crate::mixture::{Rule, Temperature, Truncation, distribution, distribution_softmax};
use crate::models::{Config, Gpt2Config, LanguageModel, LlamaConfig};
use crate::nn::Params;
use crate::progress::Progress;
use crate::record::record;
use crate::rollout::speculative::{BatchCosts, Counts, measure_costs, residual};
use crate::rollout::{Draft, Gamma, Proposal, Response, Sampler, Speculation};
use crate::seed::{Purpose, rng};
use crate::target::{Expert, Target};
use crate::tasks::{Split, Task};

/// The blocks that a dearer expert has more in the study, and the scale of what they add: see [`deepened`].
pub const FURTHER_BLOCKS: usize = 24;
pub const FURTHER_SCALE: f64 = 0.1;

/// A policy that drafts for q\* of itself and a target, and the prompts that both answer.
pub struct SpeculativePair {
    pub name: String,
    policy: LanguageModel,
    target: Expert,
    task: Arc<dyn Task>,
    prompts: Vec<Vec<u32>>,
    responses: usize,
}

impl SpeculativePair {
    /// π_init of a world and an expert, with so many responses to each of the first held-out prompts: prompts · responses are
    /// the rows of the batch.
    ///
    /// # Errors
    /// No prompts or responses; what the task does not have.
    pub fn new(name: &str, world: &World, expert: &LanguageModel, prompts: usize, responses: usize) -> Result<Self> {
        ensure!(prompts > 0 && responses > 0, "{name}: speculation needs a prompt and a response");
        Ok(Self {
            name: name.to_string(),
            policy: world.models.initial.copy()?,
            target: Expert::new(expert)?,
            task: world.task.clone(),
            prompts: (0..prompts as u64).map(|i| world.task.prompt(Split::Test, i).tokens).collect(),
            responses,
        })
    }

    fn sampler(&self, step: u64) -> Result<Sampler<'_>> {
        held_out(&*self.task, Proposal::Mixture(Rule::Q_STAR), step)
    }

    /// What the parts cost on this machine, with so many candidates.
    ///
    /// # Errors
    /// Those of the models.
    pub fn costs(&self, candidates: usize, turns: usize) -> Result<BatchCosts> {
        let speculation = Speculation { candidates, ..Speculation::fixed(1) };
        let policy = self.policy.frozen()?;
        let target: &dyn Target = &self.target;
        let (sampler, k) = (self.sampler(1 << 40)?, self.responses);
        measure_costs(&sampler, &policy, Some(target), Draft::Policy, &speculation, &self.prompts, k, turns)
    }
}

record! {
    /// Table 4: one way to speculate for one pair of models, beside the standard sampler.
    pub struct SpeculationRow {
        /// Name of the pair of models.
        pub pair: String,
        /// Responses that are drawn at once.
        pub rows: i64,
        /// Drafted tokens a chain and round.
        pub gamma: i64,
        /// Chains a response.
        pub candidates: i64,
        /// Share of the tested drafted tokens that was accepted.
        pub acceptance: f64,
        /// The same at the first place of a round.
        pub acceptance_first: f64,
        /// The same at later places.
        pub acceptance_later: f64,
        /// Tokens of a response for one reading of the target.
        pub tokens_per_verification: f64,
        /// One token of the draft over one reading of one token by what verifies, for all rows.
        pub cost_ratio: f64,
        /// What every further token adds to a reading, over the same.
        pub token_cost: f64,
        /// Seconds of a batch by the standard sampler: median over the turns.
        pub seconds_standard: f64,
        /// Seconds of a batch with speculation: median over the turns.
        pub seconds: f64,
        /// Standard over speculative seconds of the same turn: median over the turns.
        pub speedup: f64,
        /// The lower quartile.
        pub speedup_q25: f64,
        /// The upper quartile.
        pub speedup_q75: f64,
        /// The same by the formula, from the acceptance, the costs and the lengths of the responses: median.
        pub predicted: f64,
        /// measured / predicted − 1.
        pub error: f64,
    }
}

/// A row ([`SpeculationRow`]) for each pair, γ and number of candidates. In every turn the standard sampler and speculation
/// draw one after the other; both go on until the last response has ended.
///
/// # Errors
/// Nothing to measure; those of the models.
pub fn speedups(pairs: &[SpeculativePair], gammas: &[usize], candidates: &[usize], turns: usize) -> Result<DataFrame> {
    ensure!(turns > 0, "a speed-up is measured in a turn at least");
    let mut rows = Vec::new();
    for pair in pairs {
        for &candidates in candidates {
            let costs = pair.costs(candidates, turns.div_ceil(3))?;
            let ways: Vec<Speculation> =
                gammas.iter().map(|&gamma| Speculation { candidates, ..Speculation::fixed(gamma) }).collect();
            let label = format!("{}, {candidates} candidates", pair.name);
            for (way, turns) in ways.iter().zip(interleaved(pair, &ways, turns, &label)?) {
                rows.push(row(pair, way, &costs, &turns)?);
            }
        }
    }
    SpeculationRow::frame(&rows)
}

record! {
    /// How near the measured speed-ups of one pair are to those that were predicted.
    pub struct WithinRow {
        pub pair: String,
        /// Ways to speculate, and how many of them lie within the share.
        pub ways: i64,
        pub within: i64,
        /// The largest |measured / predicted − 1|.
        pub worst: f64,
        /// The largest measured speed-up, its γ and its number of candidates.
        pub best: f64,
        pub gamma: i64,
        pub candidates: i64,
    }
}

/// A row ([`WithinRow`]) a pair of the frame of [`speedups`]: which of its ways are within `share` of what was predicted.
///
/// # Errors
/// Another frame.
pub fn within(speedups: &DataFrame, share: f64) -> Result<DataFrame> {
    let numbers = |name: &str| -> Result<Vec<f64>> {
        Ok(speedups.column(name)?.cast(&DataType::Float64)?.f64()?.iter().flatten().collect())
    };
    let (errors, measured) = (numbers("error")?, numbers("speedup")?);
    let (gammas, candidates) = (numbers("gamma")?, numbers("candidates")?);
    let pairs: Vec<&str> = speedups.column("pair")?.str()?.iter().flatten().collect();
    let mut rows: Vec<WithinRow> = Vec::new();
    for (at, pair) in pairs.into_iter().enumerate() {
        let known = rows.iter().position(|row| row.pair == pair);
        let place = known.unwrap_or_else(|| {
            let zero =
                WithinRow { pair: pair.to_owned(), ways: 0, within: 0, worst: 0.0, best: 0.0, gamma: 0, candidates: 0 };
            rows.push(zero);
            rows.len() - 1
        });
        let row = &mut rows[place];
        row.ways += 1;
        row.within += i64::from(errors[at].abs() <= share);
        row.worst = row.worst.max(errors[at].abs());
        if measured[at] > row.best {
            (row.best, row.gamma, row.candidates) = (measured[at], gammas[at] as i64, candidates[at] as i64);
        }
    }
    WithinRow::frame(&rows)
}

/// One turn of both samplers.
struct Turn {
    standard: f64,
    standard_lengths: Vec<usize>,
    speculative: f64,
    lengths: Vec<usize>,
    counts: Counts,
}

/// The turns of every way; the first, which warms up, is left out.
fn interleaved(pair: &SpeculativePair, ways: &[Speculation], turns: usize, label: &str) -> Result<Vec<Vec<Turn>>> {
    let policy = pair.policy.frozen()?;
    let target: Option<&dyn Target> = Some(&pair.target);
    let progress = Progress::new(label, ((turns + 1) * ways.len()) as u64);
    let lengths = |responses: &[Response]| responses.iter().map(|response| response.draws.len()).collect::<Vec<_>>();
    let mut all: Vec<Vec<Turn>> = ways.iter().map(|_| Vec::new()).collect();
    for turn in 0..=turns {
        for (way, (speculation, seen)) in ways.iter().zip(&mut all).enumerate() {
            let sampler = pair.sampler((turn * ways.len() + way) as u64)?;
            let start = Instant::now();
            let plain = sampler.rollout(&policy, target, &pair.prompts, pair.responses)?;
            let standard = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let drawn =
                sampler.speculate(&policy, target, Draft::Policy, speculation, &pair.prompts, pair.responses)?;
            let speculative = start.elapsed().as_secs_f64();
            if turn > 0 {
                let (standard_lengths, lengths) = (lengths(&plain.responses), lengths(&drawn.responses));
                seen.push(Turn { standard, standard_lengths, speculative, lengths, counts: drawn.counts });
            }
            progress.inc(1);
        }
    }
    progress.finish();
    Ok(all)
}

fn row(pair: &SpeculativePair, way: &Speculation, costs: &BatchCosts, turns: &[Turn]) -> Result<SpeculationRow> {
    let mut counts = Counts::default();
    turns.iter().for_each(|turn| counts += turn.counts);
    let (acceptance, tokens_per_verification) = counts
        .acceptances()
        .zip(counts.tokens_per_round())
        .with_context(|| format!("{}: no drafted token was tested", pair.name))?;
    let gamma = match way.gamma {
        Gamma::Fixed(gamma) => gamma,
        other => bail!("{}: the formula knows a fixed γ, not {other:?}", pair.name),
    };
    let column = |of: &dyn Fn(&Turn) -> f64| turns.iter().map(of).collect::<Vec<f64>>();
    let measured = column(&|turn| turn.standard / turn.speculative);
    let predicted = column(&|turn| {
        costs.standard_seconds(&turn.standard_lengths) / costs.speculative_seconds(&turn.lengths, acceptance, gamma)
    });
    let (speedup, predicted) = (quantile(&measured, 0.5), quantile(&predicted, 0.5));
    let rows = pair.prompts.len() * pair.responses;
    let whole = costs.at(rows as f64);
    let reading = whole.verify + whole.token;
    Ok(SpeculationRow {
        pair: pair.name.clone(),
        rows: rows as i64,
        gamma: gamma as i64,
        candidates: way.candidates as i64,
        acceptance: counts.acceptance().unwrap_or(0.0),
        acceptance_first: acceptance.first,
        acceptance_later: acceptance.later,
        tokens_per_verification,
        cost_ratio: whole.draft / reading,
        token_cost: (whole.token / reading).max(0.0),
        seconds_standard: quantile(&column(&|turn| turn.standard), 0.5),
        seconds: quantile(&column(&|turn| turn.speculative), 0.5),
        speedup,
        speedup_q25: quantile(&measured, 0.25),
        speedup_q75: quantile(&measured, 0.75),
        predicted,
        error: speedup / predicted - 1.0,
    })
}

/// A dearer model that says nearly the same: `model` with so many further blocks behind its own, freshly drawn, whose
/// projections into the residual stream are multiplied by `scale`. At 0 it is the model itself at the price of more layers.
///
/// # Errors
/// A model that is neither a GPT-2 nor a LLaMA, or has adapters; a scale that is not a number.
pub fn deepened(model: &LanguageModel, further: usize, scale: f64, seed: u64) -> Result<LanguageModel> {
    ensure!(scale.is_finite(), "the scale of further blocks is a number: {scale}");
    let config = match &model.config {
        Config::Gpt2(config) => Config::Gpt2(Gpt2Config { n_layer: config.n_layer + further, ..config.clone() }),
        Config::Llama(config) => {
            let num_hidden_layers = config.num_hidden_layers + further;
            Config::Llama(LlamaConfig { num_hidden_layers, ..config.clone() })
        }
        other => bail!("only a GPT-2 or a LLaMA can be deepened, not {other:?}"),
    };
    let own: HashMap<String, candle_core::Tensor> = model.params.tensors();
    let fresh = LanguageModel::new(config.clone(), seed)?;
    let mut tensors = Vec::new();
    for (name, tensor) in fresh.params.tensors() {
        // Blocks add what these make of them.
        let adds = ["c_proj.", "o_proj.", "down_proj."].iter().any(|part| name.contains(part));
        let tensor = match own.get(&name) {
            Some(own) => own.clone(),
            None if adds => (tensor * scale)?,
            None => tensor,
        };
        tensors.push((name, tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    LanguageModel::from_params(config, Params::from_tensors(tensors)?)
}

record! {
    /// What is drawn after a rejection, and how far the law of a token then is from q\*: KL(law‖q\*) in nats, over random
    /// pairs of logits of one standard deviation.
    pub struct FallbackRow {
        /// Tokens.
        pub vocabulary: i64,
        /// Standard deviation of the logits.
        pub spread: f64,
        /// Pairs that were enumerated.
        pub pairs: i64,
        /// The mean over pairs of Σ min(q, π_θ): the share of drafts that is accepted.
        pub acceptance: f64,
        /// With the normalised positive part of q\* − π_θ: the largest.
        pub residual_most: f64,
        /// With q\* itself: the mean.
        pub fallback_mean: f64,
        /// With q\* itself: the least.
        pub fallback_least: f64,
        /// With q\* itself: the largest.
        pub fallback_most: f64,
    }
}

/// Enumerates, for each spread of Gaussian logits, what a token's law is when a rejected draft of the policy is replaced by a
/// draw from what is left of q\*, and by one from q\*, as the public form of the algorithm does.
///
/// # Errors
/// A vocabulary of less than two tokens, no pairs; a spread that is no positive number.
pub fn fallbacks(vocabulary: usize, spreads: &[f64], pairs: u64) -> Result<DataFrame> {
    ensure!(vocabulary >= 2 && pairs > 0, "enumeration needs two tokens and a pair: {vocabulary} and {pairs}");
    let row = |&spread: &f64| -> Result<FallbackRow> {
        ensure!(spread.is_finite() && spread > 0.0, "the spread of logits is a positive number: {spread}");
        let (mut right, mut wrong, mut acceptances) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs {
            let mut rng = rng(pair, Purpose::Exact, vocabulary as u64, spread.to_bits());
            let mut logits = || -> Vec<f32> {
                (0..vocabulary).map(|_| (spread * rng.sample::<f64, _>(StandardNormal)) as f32).collect()
            };
            let (p, t) = (logits(), logits());
            let q = distribution(&p, &t, &Rule::Q_STAR, &Temperature::ONE, &Truncation::NONE)?.probabilities;
            let d = distribution_softmax(&p, 1.0, &Truncation::NONE)?.probabilities;
            let mut rest = q.clone();
            residual(&mut rest, &d);
            let law = |fallback: &[f64]| {
                let mut law = vec![0.0; vocabulary];
                for (drafted, &mass) in d.iter().enumerate() {
                    let accepted = (q[drafted] / mass).min(1.0);
                    law[drafted] += mass * accepted;
                    law.iter_mut().zip(fallback).for_each(|(law, f)| *law += mass * (1.0 - accepted) * f);
                }
                law
            };
            let kl = |law: &[f64]| -> f64 {
                law.iter().zip(&q).filter(|(law, _)| **law > 0.0).map(|(law, q)| law * (law / q).ln()).sum()
            };
            right.push(kl(&law(&rest)).abs());
            wrong.push(kl(&law(&q)));
            acceptances.push(q.iter().zip(&d).map(|(q, d)| q.min(*d)).sum());
        }
        let most = |x: &[f64]| x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(FallbackRow {
            vocabulary: vocabulary as i64,
            spread,
            pairs: pairs as i64,
            acceptance: mean(&acceptances),
            residual_most: most(&right),
            fallback_mean: mean(&wrong),
            fallback_least: wrong.iter().copied().fold(f64::INFINITY, f64::min),
            fallback_most: most(&wrong),
        })
    };
    FallbackRow::frame(&spreads.iter().map(row).collect::<Result<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_within_a_share_are_counted_by_pair() {
        let speedups = polars::df!(
            "pair" => ["a", "b", "a"], "gamma" => [3i64, 5, 10], "candidates" => [1i64, 1, 3],
            "speedup" => [1.2, 0.9, 1.5], "error" => [0.1, -0.2, -0.15],
        );
        let expected = polars::df!(
            "pair" => ["a", "b"], "ways" => [2i64, 1], "within" => [2i64, 0], "worst" => [0.15, 0.2], "best" => [1.5, 0.9],
            "gamma" => [10i64, 5], "candidates" => [3i64, 1],
        );
        assert_eq!(within(&speedups.unwrap(), 0.15).unwrap(), expected.unwrap());
    }

    #[test]
    fn a_deeper_model_at_scale_0_is_the_model() {
        let config =
            Gpt2Config { vocab_size: 11, n_positions: 16, n_embd: 8, n_layer: 2, n_head: 2, ..Default::default() };
        let model = LanguageModel::new(Config::Gpt2(config), 1).unwrap();
        let logits = |model: &LanguageModel| -> Vec<f32> {
            let ids = candle_core::Tensor::new(&[[1u32, 2, 3]], &candle_core::Device::Cpu).unwrap();
            let hidden = model.network.hidden(&ids, None).unwrap();
            model.network.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let (same, other) = (deepened(&model, 3, 0.0, 5).unwrap(), deepened(&model, 3, 1.0, 5).unwrap());
        assert!(same.params.count() > 2 * model.params.count() - 11 * 8 - 16 * 8);
        assert_eq!(logits(&same), logits(&model));
        assert_ne!(logits(&other), logits(&model));
    }

    #[test]
    fn only_the_residual_keeps_the_law() {
        let frame = fallbacks(5, &[1.0, 3.0], 50).unwrap();
        let column = |name: &str| -> Vec<f64> { frame.column(name).unwrap().f64().unwrap().iter().flatten().collect() };
        assert!(column("residual_most").iter().all(|kl| *kl < 1e-12));
        assert!(column("fallback_mean").iter().all(|kl| *kl > 1e-3));
        assert!(fallbacks(1, &[1.0], 5).is_err() && fallbacks(5, &[0.0], 5).is_err());
    }
}
