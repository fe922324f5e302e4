//! From a batch to a step of the optimizer: one function an objective.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Sample};
use super::sequences::numbers;
use super::{Gradient, Sequences, Trainer};
use crate::method::{
    Dpo, Level, Loss, Objective, Penalty, Ppo, Share, Surrogate, Tokens, generalized_advantages, leave_one_out,
    log_weights, maximum_likelihood_loss, policy_loss, reinforce_loss, value_loss, whiten,
};

/// What an update reports. There is none where nothing was to be learned from.
#[derive(Debug, Clone)]
pub struct Update {
    /// Of the first pass.
    pub loss: f64,
    /// The gradient's norm before clipping, and its variance between microbatches.
    pub gradient_norm: f64,
    pub gradient_variance: Option<f64>,
    /// log π_θ of every token of every response learned from, as the first pass computes it.
    pub log_probs: Vec<f64>,
    /// Treated weights, one row a response, where the objective has any.
    pub weights: Option<Vec<Vec<f64>>>,
    /// Tokens read by all passes, forward and backward, and forward alone.
    pub tokens_trained: usize,
    pub tokens_read: usize,
}

/// A part of the batch as the losses see it.
struct Part<'a> {
    /// The responses, by their places among those that are learned from.
    rows: Range<usize>,
    lengths: &'a [usize],
    log_probs: &'a [f64],
    /// Of the value head, where there is one.
    values: &'a [f64],
    share: Share,
}

/// The loss of a part: by log-probabilities, and by values where there is a value head.
struct Losses {
    policy: Loss,
    value: Option<Loss>,
}

impl From<Loss> for Losses {
    fn from(policy: Loss) -> Self {
        Self { policy, value: None }
    }
}

/// How a batch is learned from.
struct Lesson<'b> {
    loss: Box<dyn Fn(Part) -> Losses + 'b>,
    epochs: usize,
    weights: Option<Vec<Vec<f64>>>,
    tokens_read: usize,
}

impl<'b> Lesson<'b> {
    fn new(loss: impl Fn(Part) -> Losses + 'b) -> Self {
        Self { loss: Box::new(loss), epochs: 1, weights: None, tokens_read: 0 }
    }
}

impl Trainer<'_> {
    /// The gradient that a batch gives, and what the update with it would report; nothing is changed. With several
    /// microbatches it is their mean. `None` where nothing is to be learned from.
    ///
    /// # Errors
    /// A loss or a gradient that is not a number.
    pub fn gradient(&self, batch: &Batch) -> Result<Option<(Gradient, Update)>> {
        if batch.learned.is_empty() {
            return Ok(None);
        }
        self.gradient_of(batch, &self.lesson(batch)?).map(Some)
    }

    /// All passes over a batch; what the first one reports, with the tokens of all.
    pub(super) fn learn(&mut self, batch: &Batch, learning_rate: f64) -> Result<Option<Update>> {
        if batch.learned.is_empty() {
            return Ok(None);
        }
        let lesson = self.lesson(batch)?;
        let mut first: Option<Update> = None;
        for _ in 0..lesson.epochs {
            let (mut gradient, update) = self.gradient_of(batch, &lesson)?;
            gradient.clip(self.config.max_gradient_norm)?;
            self.optimizer.step(&self.params, &gradient, learning_rate)?;
            match &mut first {
                Some(first) => first.tokens_trained += update.tokens_trained,
                None => first = Some(update),
            }
        }
        Ok(first)
    }

    fn lesson<'b>(&self, batch: &'b Batch) -> Result<Lesson<'b>> {
        match self.method.objective {
            Objective::Reinforce => self.reinforce(batch),
            Objective::MaximumLikelihood => {
                Ok(Lesson::new(|part| maximum_likelihood_loss(part.log_probs, part.share.responses).into()))
            }
            Objective::Ppo(ppo) => self.ppo(batch, ppo),
            Objective::Surrogate(surrogate) => self.surrogate(batch, surrogate),
            Objective::Dpo(dpo) => dpo_lesson(batch, dpo),
        }
    }

    /// The return of every response, less the mean of the others of its prompt, times w.
    fn reinforce<'b>(&self, batch: &'b Batch) -> Result<Lesson<'b>> {
        let returns = returns(batch, self.state.beta)?;
        let k = self.config.responses;
        let mut advantages = leave_one_out(&returns, k);
        let weight = self.method.weight;
        let mut raw = Vec::with_capacity(batch.learned.len());
        for (i, (learned, sample)) in batch.learned.iter().zip(batch.learned_samples()).enumerate() {
            raw.push(match learned.picked {
                Some((log_weight, baseline)) => {
                    advantages[i] = returns[i] - baseline;
                    vec![log_weight; sample.tokens.len()]
                }
                None => log_weights(weight.level, sample.log_p()?, sample.log_q()?),
            });
        }
        // What was picked is weighed as a whole, whatever the level.
        let picked = batch.learned.iter().any(|learned| learned.picked.is_some());
        let level = if picked { Level::Sequence } else { weight.level };
        let weights = weight.treatment.treat(level, &raw, k);
        let coefficients: Vec<Vec<f64>> =
            weights.iter().zip(&advantages).map(|(w, a)| w.iter().map(|w| w * a).collect()).collect();
        let loss = move |part: Part| {
            reinforce_loss(part.log_probs, &coefficients[part.rows].concat(), part.share.responses).into()
        };
        Ok(Lesson { weights: Some(weights), ..Lesson::new(loss) })
    }

    fn surrogate<'b>(&self, batch: &'b Batch, surrogate: Surrogate) -> Result<Lesson<'b>> {
        let beta = self.state.beta;
        let paid = if surrogate.kl == Penalty::Reward { beta } else { 0.0 };
        let advantages = surrogate.advantages(&returns(batch, paid)?, self.config.responses);
        let old = old_log_probs(batch)?;
        let reference = references(batch)?;
        let loss = move |part: Part| {
            let tokens = Tokens {
                old_log_probs: &old[part.rows.clone()].concat(),
                reference: &reference[part.rows.clone()].concat(),
                advantages: &advantages[part.rows],
                lengths: part.lengths,
            };
            surrogate.loss(part.log_probs, &tokens, beta, &part.share).into()
        };
        Ok(Lesson { epochs: surrogate.epochs, ..Lesson::new(loss) })
    }

    fn ppo<'b>(&self, batch: &'b Batch, ppo: Ppo) -> Result<Lesson<'b>> {
        let pairs = batch.learned_pairs();
        let own = self.ranks.agree(self.values(&pairs[self.ranks.part(pairs.len())]))?;
        let (old_values, reads): (Vec<_>, Vec<_>) = self.ranks.exchange(own)?.into_iter().unzip();
        let (old_values, tokens_read) = (old_values.concat(), reads.into_iter().sum());
        let old = old_log_probs(batch)?;
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        for (sample, values) in batch.learned_samples().zip(&old_values) {
            // A penalty for every token, and the reward with the last one.
            let ratios = sample.log_p()?.iter().zip(sample.reference()?);
            let mut rewards: Vec<f64> = ratios.map(|(p, init)| -self.state.beta * ppo.kl.of(*p, *init)).collect();
            *rewards.last_mut().context("a response has tokens")? += sample.shaped;
            let (a, r) = generalized_advantages(&rewards, values, ppo.gae_lambda);
            advantages.extend(a);
            returns.push(r);
        }
        if ppo.whiten {
            whiten(&mut advantages);
        }
        let mut rest = &advantages[..];
        let by_response = |(_, response): &(&[u32], &[u32])| {
            let (own, others) = rest.split_at(response.len());
            rest = others;
            own.to_vec()
        };
        let advantages: Vec<Vec<f64>> = pairs.iter().map(by_response).collect();
        let loss = move |part: Part| {
            let rows = part.rows.clone();
            let (old, advantages) = (old[rows.clone()].concat(), advantages[rows.clone()].concat());
            let (old_values, returns) = (old_values[rows.clone()].concat(), returns[rows].concat());
            let tokens = part.share.tokens;
            let value = value_loss(part.values, &old_values, &returns, ppo.value_clip, tokens);
            let policy = policy_loss(part.log_probs, &old, &advantages, ppo.clip, tokens);
            Losses { policy, value: Some(value.times(ppo.value_coefficient)) }
        };
        Ok(Lesson { epochs: ppo.epochs, tokens_read, ..Lesson::new(loss) })
    }

    /// The value head's values of every token of every response, and the number of tokens that it took to read.
    fn values(&self, pairs: &[(&[u32], &[u32])]) -> Result<(Vec<Vec<f64>>, usize)> {
        if pairs.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let value_head = self.value_head.as_ref().context("PPO has a value head")?;
        let sequences = Sequences::new(pairs)?;
        let hidden = sequences.hidden(&self.policy.frozen()?)?;
        let values = sequences.by_response(&numbers(&value_head.apply(&hidden)?.squeeze(1)?)?);
        Ok((values, sequences.read_count()))
    }

    /// The mean gradient over the microbatches of one pass, of which every rank takes its part.
    fn gradient_of(&self, batch: &Batch, lesson: &Lesson) -> Result<(Gradient, Update)> {
        let all = batch.learned_pairs();
        let size = all.len().div_ceil(self.config.microbatches);
        // DPO's pairs stay together.
        let size = if let Objective::Dpo(_) = self.method.objective { size.next_multiple_of(2) } else { size };
        let microbatches: Vec<Range<usize>> =
            (0..all.len()).step_by(size).map(|from| from..all.len().min(from + size)).collect();
        let parts = microbatches.len() as f64;
        let share = Share {
            responses: all.len() as f64 / parts,
            tokens: all.iter().map(|(_, response)| response.len()).sum::<usize>() as f64 / parts,
            longest: self.task.max_response_tokens(),
        };
        let own = || {
            let (mut gradient, mut own): (Option<Gradient>, Pass) = Default::default();
            for rows in &microbatches[self.ranks.part(microbatches.len())] {
                let (part, pass) = self.microbatch(&all[rows.clone()], rows.clone(), share, lesson)?;
                match &mut gradient {
                    Some(sum) => sum.add(part)?,
                    None => gradient = Some(part),
                }
                own.add(pass);
            }
            if self.policy.network.is_spread() {
                // All ranks read at the same time: one with fewer microbatches reads one again, for nothing.
                let most = microbatches.len().div_ceil(self.ranks.size());
                for _ in self.ranks.part(microbatches.len()).len()..most {
                    let rows = microbatches[0].clone();
                    self.microbatch(&all[rows.clone()], rows, share, lesson)?;
                }
            }
            // Where fewer microbatches than ranks are left, some ranks have none.
            Ok((gradient.map_or_else(|| Gradient::zeros(&self.params), Ok)?, own))
        };
        let (mut gradient, own) = self.ranks.agree(own())?;
        gradient.sum_over(&self.ranks)?;
        let mut pass = Pass::default();
        self.ranks.exchange(own)?.into_iter().for_each(|share| pass.add(share));
        // Parts of different sizes have different variances.
        let gradient_variance = gradient.into_mean()?.filter(|_| all.len().is_multiple_of(size));
        let gradient_norm = gradient.norm()?;
        let update = Update {
            loss: pass.loss / parts,
            gradient_norm,
            gradient_variance,
            log_probs: pass.log_probs,
            weights: lesson.weights.clone(),
            tokens_trained: pass.tokens,
            tokens_read: lesson.tokens_read,
        };
        Ok((gradient, update))
    }

    /// The gradient of one microbatch: of the responses `rows` of those that are learned from.
    fn microbatch(
        &self,
        pairs: &[(&[u32], &[u32])],
        rows: Range<usize>,
        share: Share,
        lesson: &Lesson,
    ) -> Result<(Gradient, Pass)> {
        let sequences = Sequences::new(pairs)?;
        let hidden = sequences.hidden(&self.policy.network)?;
        let log_probs = sequences.log_probs(&self.policy.network, &hidden)?;
        let values = self.value_head.as_ref().map(|head| head.apply(&hidden)?.squeeze(1)).transpose()?;
        let log_probs_here = numbers(&log_probs)?;
        let losses = (lesson.loss)(Part {
            rows,
            lengths: sequences.lengths(),
            log_probs: &log_probs_here,
            values: &values.as_ref().map(numbers).transpose()?.unwrap_or_default(),
            share,
        });
        let mut value = losses.policy.value;
        let mut through = losses.policy.through(&log_probs)?;
        if let (Some(loss), Some(values)) = (&losses.value, &values) {
            value += loss.value;
            through = (through.to_dtype(values.dtype())? + loss.through(values)?)?;
        }
        ensure!(value.is_finite(), "the loss is not a number: {value}");
        let gradient = Gradient::of(&through, &self.params)?;
        Ok((gradient, Pass { loss: value, log_probs: log_probs_here, tokens: sequences.read_count() }))
    }
}

/// What passes over microbatches come to.
#[derive(Default, Serialize, Deserialize)]
struct Pass {
    loss: f64,
    log_probs: Vec<f64>,
    /// Those that were read.
    tokens: usize,
}

impl Pass {
    fn add(&mut self, other: Pass) {
        self.loss += other.loss;
        self.log_probs.extend(other.log_probs);
        self.tokens += other.tokens;
    }
}

fn dpo_lesson(batch: &Batch, dpo: Dpo) -> Result<Lesson<'_>> {
    let reference = references(batch)?;
    Ok(Lesson::new(move |part| {
        let pairs = part.share.responses / 2.0;
        dpo.loss(part.log_probs, &reference[part.rows].concat(), part.lengths, pairs).loss.into()
    }))
}

/// The returns of the responses that are learned from.
fn returns(batch: &Batch, beta: f64) -> Result<Vec<f64>> {
    batch.learned_samples().map(|sample| sample.value(beta)).collect()
}

fn old_log_probs(batch: &Batch) -> Result<Vec<&[f64]>> {
    batch.learned_samples().map(Sample::log_q).collect()
}

/// log π_init of the tokens of the responses that are learned from.
fn references(batch: &Batch) -> Result<Vec<&[f64]>> {
    batch.learned_samples().map(Sample::reference).collect()
}
