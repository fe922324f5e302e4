//! A distribution that is tilted by the reward of every likely next token.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Result, ensure};

use super::reward_cache::RewardCache;
use super::{Contexts, Cost, SequenceReward, Target};
use crate::models::{Decoder, LanguageModel, Network};

/// π_t(z) ∝ base(z) exp(r(prefix·z)/β) for the k tokens z that π_ref finds likeliest; for the others r is the mean of these
/// k rewards, so that the target has mass wherever the base has.
///
/// **Source.** The study's own definition of π_t, with [`Base::Uniform`]; with [`Base::Reference`] reward-augmented decoding
/// (Deng, Raffel 2023, arXiv:2310.09520).
///
/// **What it is not.** r reads *unfinished* responses here. A reward model that learned from finished ones says little of
/// them: what it gives a prefix is not what the finished response would get.
///
/// **Cost.** For every token one forward pass of π_ref and k rewards of sequences that grow; all rows and all candidates
/// are one call. [`Caching`] says which rewards are not computed twice.
pub struct RewardSoftmax {
    network: Network,
    reward: SequenceReward,
    config: SoftmaxConfig,
    identity: String,
    kept: Mutex<RewardCache>,
}

/// The constants of a [`RewardSoftmax`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftmaxConfig {
    pub base: Base,
    /// Candidates a token.
    pub k: usize,
    /// The temperature of the rewards.
    pub beta: f64,
    pub caching: Caching,
}

/// What the rewards tilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// π_ref.
    Reference,
    /// The same for every token: the study's literal form. π_ref says only which tokens are candidates.
    Uniform,
}

/// Which rewards are remembered. The distributions are the same for all, to the last bit where a reward does not depend on
/// what is scored beside it; a reward model computes batches of different sizes in different orders, which moves log π_t
/// by about 1e-6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// None: k calls for every row and token.
    Off,
    /// Rows of one rollout that stand at the same prefix, as the responses to one prompt do at first, share theirs.
    Rollout,
    /// Up to so many rewards are kept over rollouts as well, for prompts that come again. How many calls a step needs then
    /// depends on what came before it, on other runs with this target and on whether a run was resumed: not for a
    /// comparison at a budget of reward calls.
    Kept { entries: usize },
}

impl Default for SoftmaxConfig {
    fn default() -> Self {
        Self { base: Base::Reference, k: 8, beta: 0.1, caching: Caching::Rollout }
    }
}

impl RewardSoftmax {
    /// Shares π_ref's memory.
    ///
    /// # Errors
    /// β that is not a positive number; no candidates, or more than there are tokens; a reward model of another
    /// vocabulary; room for no rewards.
    pub fn new(reference: &LanguageModel, reward: SequenceReward, config: SoftmaxConfig) -> Result<Self> {
        let SoftmaxConfig { base, k, beta, caching } = config;
        let size = reference.config.vocab_size();
        ensure!(beta.is_finite() && beta > 0.0, "the reward softmax's β must be a positive number: {beta}");
        ensure!(k > 0 && k <= size, "the reward softmax scores k of {size} tokens, from 1 to all of them: k is {k}");
        ensure!(caching != Caching::Kept { entries: 0 }, "a cache of rewards needs room for one");
        reward.check_vocabulary(size)?;
        let identity = format!(
            "reward_softmax {base:?} k={k} β={beta} {caching:?} reference {} {}",
            reference.digest()?,
            reward.identity()
        );
        let kept = Mutex::new(match caching {
            Caching::Kept { entries } => RewardCache::new(entries),
            Caching::Off | Caching::Rollout => RewardCache::default(),
        });
        Ok(Self { network: reference.frozen()?, reward, config, identity, kept })
    }

    /// The reward of every sequence: as many as were not known are computed, in one call.
    fn rewards(&self, sequences: Vec<Vec<u32>>) -> Result<(Vec<f64>, Cost)> {
        let caching = self.config.caching;
        if caching == Caching::Off {
            return self.reward.scores(&sequences);
        }
        let mut known: Vec<Option<f64>> = vec![None; sequences.len()];
        if matches!(caching, Caching::Kept { .. }) {
            let mut kept = self.kept();
            known.iter_mut().zip(&sequences).for_each(|(known, sequence)| *known = kept.get(sequence));
        }
        // Each of the others once, in the order in which they came.
        let mut places: HashMap<&[u32], usize> = HashMap::new();
        let mut asked: Vec<Vec<u32>> = Vec::new();
        for sequence in sequences.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(sequence, _)| sequence)
        {
            places.entry(&sequence[..]).or_insert_with(|| {
                asked.push(sequence.clone());
                asked.len() - 1
            });
        }
        let (scores, mut cost) = self.reward.scores(&asked)?;
        let rewards: Vec<f64> =
            sequences.iter().zip(known).map(|(s, known)| known.unwrap_or_else(|| scores[places[&s[..]]])).collect();
        cost.reward_hits = (sequences.len() - asked.len()) as u64;
        if matches!(caching, Caching::Kept { .. }) {
            let mut kept = self.kept();
            asked.into_iter().zip(scores).for_each(|(sequence, reward)| kept.insert(sequence, reward));
        }
        Ok((rewards, cost))
    }

    fn kept(&self) -> MutexGuard<'_, RewardCache> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Target for RewardSoftmax {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn max_positions(&self) -> usize {
        self.network.max_positions().min(self.reward.max_positions())
    }

    fn read<'a>(&'a self, prompts: &[Vec<u32>], k: usize, max_new: usize) -> Result<Box<dyn Contexts + 'a>> {
        let base = Decoder::prefill(&self.network, prompts, k, max_new)?;
        let prefixes: Vec<Vec<u32>> =
            prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt.clone(), k)).collect();
        let read = vec![1; prefixes.len()];
        let (logits, cost) = (Vec::new(), Cost::default());
        let mut tilted = Tilted { target: self, base, prefixes, read, logits, cost };
        tilted.tilt()?;
        Ok(Box::new(tilted))
    }
}

/// Rows that were read, with the logits of the tilted distributions.
struct Tilted<'a> {
    target: &'a RewardSoftmax,
    base: Decoder<'a>,
    prefixes: Vec<Vec<u32>>,
    /// How many tokens every row read last, and the logits behind each of them, row by row.
    read: Vec<usize>,
    logits: Vec<f32>,
    /// Of the rewards.
    cost: Cost,
}

impl Tilted<'_> {
    fn tilt(&mut self) -> Result<()> {
        let SoftmaxConfig { base, k, beta, .. } = self.target.config;
        let last = |(place, prefix): (usize, &'_ Vec<u32>)| -> Vec<(usize, usize, usize)> {
            let read = self.read[place];
            (0..read).map(|j| (place, j, prefix.len() + 1 + j - read)).collect()
        };
        // Place, token of those that were read last, length of the prefix that ends with it.
        let places: Vec<(usize, usize, usize)> = self.prefixes.iter().enumerate().flat_map(last).collect();
        let rows: Vec<&[f32]> = places.iter().map(|&(place, j, _)| self.base.row_behind(place, j)).collect();
        let candidates: Vec<Vec<u32>> = rows.iter().map(|row| likeliest(row, k)).collect();
        let extended = places.iter().zip(&candidates).flat_map(|(&(place, _, length), candidates)| {
            let prefix = &self.prefixes[place][..length];
            candidates.iter().map(move |&token| prefix.iter().copied().chain([token]).collect::<Vec<u32>>())
        });
        let (rewards, cost) = self.target.rewards(extended.collect())?;
        let mut logits = Vec::with_capacity(rows.len() * self.base.vocabulary());
        let mut rest = &rewards[..];
        for (row, candidates) in rows.iter().zip(&candidates) {
            let (own, others) = rest.split_at(candidates.len());
            rest = others;
            let first = logits.len();
            match base {
                Base::Reference => logits.extend_from_slice(row),
                // What π_ref cannot say at all, such as padding of the vocabulary, is no token.
                Base::Uniform => logits.extend(row.iter().map(|&x| if x.is_finite() { 0.0 } else { x })),
            }
            // Relative to the mean reward, which is that of the tail.
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            for (&token, reward) in candidates.iter().zip(own) {
                let logit = &mut logits[first + token as usize];
                *logit = (f64::from(*logit) + (reward - mean) / beta) as f32;
            }
        }
        self.logits = logits;
        self.cost += cost;
        Ok(())
    }
}

/// The k tokens of the largest finite logits, of equal ones the first.
fn likeliest(logits: &[f32], k: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = (0..logits.len() as u32).filter(|&token| logits[token as usize].is_finite()).collect();
    let before = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if k < tokens.len() {
        tokens.select_nth_unstable_by(k, before);
        tokens.truncate(k);
    }
    tokens.sort_unstable();
    tokens
}

impl Contexts for Tilted<'_> {
    fn vocabulary(&self) -> usize {
        self.base.vocabulary()
    }

    fn row(&self, place: usize) -> &[f32] {
        self.row_behind(place, self.read[place] - 1)
    }

    fn row_behind(&self, place: usize, j: usize) -> &[f32] {
        let at = self.read[..place].iter().sum::<usize>() + j;
        &self.logits[at * self.vocabulary()..(at + 1) * self.vocabulary()]
    }

    fn keep(&mut self, places: &[usize]) {
        self.base.keep(places);
        self.prefixes = places.iter().map(|&place| self.prefixes[place].clone()).collect();
    }

    fn feed(&mut self, tokens: &[&[u32]]) -> Result<()> {
        self.base.feed(tokens)?;
        self.prefixes.iter_mut().zip(tokens).for_each(|(prefix, tokens)| prefix.extend_from_slice(tokens));
        self.read = tokens.iter().map(|tokens| tokens.len()).collect();
        self.tilt()
    }

    fn retract(&mut self, by: &[usize]) {
        self.base.retract(by);
        self.prefixes.iter_mut().zip(by).for_each(|(prefix, by)| prefix.truncate(prefix.len() - by));
    }

    fn cost(&self) -> Cost {
        let mut cost = Contexts::cost(&self.base);
        cost += self.cost;
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_those_of_a_sort() {
        let logits = [0.5, -1.0, 3.0, 0.5, f32::NEG_INFINITY, 2.0, 0.5];
        assert_eq!(likeliest(&logits, 1), [2]);
        assert_eq!(likeliest(&logits, 3), [0, 2, 5], "of equal ones the first");
        assert_eq!(likeliest(&logits, 7), [0, 1, 2, 3, 5, 6], "a token without mass is no candidate");
    }
}
