//! Targets π_t: what a policy is mixed with. One file a target.
//!
//! A target gives next-token logits for rows that grow a token a time, as a language model does. [`BestOfN`] is one over
//! whole responses.
//!
//! | target | π_t(z) after a prefix | made from | cost of a token |
//! |---|---|---|---|
//! | [`Expert`] | a second model's | demonstrations, preferences | 1 forward |
//! | [`PrefixScorer`] | ∝ π_ref(z) exp(V(prefix·z)/β) | rewards of π_ref's responses | 1 forward |
//! | [`RewardSoftmax`] | ∝ base(z) exp(r(prefix·z)/β) | a reward model | 1 forward, k reward calls |
//! | `conditional`, an [`Expert`] | π_ref after training on its best responses | rewards of π_ref's responses | 1 forward |
//!
//! What trains them stands in [`train`](crate::train).

mod along;
mod best_of_n;
mod cost;
mod expert;
mod prefix_scorer;
mod reward_cache;
mod reward_softmax;
mod sequence_reward;

use anyhow::Result;

use crate::models::Decoder;

pub use along::{Along, log_probs_along};
pub use best_of_n::{BestOfN, Picks};
pub use cost::Cost;
pub use expert::Expert;
pub use prefix_scorer::{PrefixScorer, PrefixValues};
pub use reward_softmax::{Base, Caching, RewardSoftmax, SoftmaxConfig};
pub use sequence_reward::SequenceReward;

/// π_t: next-token distributions for a batch of contexts.
pub trait Target: Send + Sync {
    /// All that decides its numbers: kind, constants, digests of weights. It is part of a run's spec.
    fn identity(&self) -> String;

    /// The number of positions that it can read.
    fn max_positions(&self) -> usize;

    /// Reads prompts (token ids) and stands ready with the next token of `k` rows of each, those of prompt i at the places
    /// `i·k .. (i+1)·k`; the rows will take up to `max_new` tokens.
    ///
    /// # Errors
    /// Prompts that its models cannot read.
    fn read<'a>(&'a self, prompts: &[Vec<u32>], k: usize, max_new: usize) -> Result<Box<dyn Contexts + 'a>>;
}

/// A batch of contexts that a target has read, each with the logits of its next token.
pub trait Contexts: Sync {
    /// The number of logits a row.
    fn vocabulary(&self) -> usize;

    /// The logits of the row at a place of the batch that was read last: after [`keep`](Self::keep) feed before you ask.
    fn row(&self, place: usize) -> &[f32];

    /// The logits behind token `j` of those that the row read last: of one that read three, `row_behind(place, 2)` is
    /// [`row`](Self::row).
    fn row_behind(&self, place: usize, j: usize) -> &[f32];

    /// The batch of the rows at `places` of the current one, in that order; a row may be left out or repeated.
    fn keep(&mut self, places: &[usize]);

    /// Reads some tokens a row, all at once; a row that reads none has no logits until it does.
    ///
    /// # Errors
    /// Those of its models.
    fn feed(&mut self, tokens: &[&[u32]]) -> Result<()>;

    /// Forgets the last `by` tokens of every row, which then has no logits until it reads again.
    fn retract(&mut self, by: &[usize]);

    /// What all of it has cost so far.
    fn cost(&self) -> Cost;
}

impl Contexts for Decoder<'_> {
    fn vocabulary(&self) -> usize {
        Decoder::vocabulary(self)
    }

    fn row(&self, place: usize) -> &[f32] {
        Decoder::row(self, place)
    }

    fn row_behind(&self, place: usize, j: usize) -> &[f32] {
        Decoder::row_behind(self, place, j)
    }

    fn keep(&mut self, places: &[usize]) {
        Decoder::keep(self, places);
    }

    fn feed(&mut self, tokens: &[&[u32]]) -> Result<()> {
        Decoder::feed(self, tokens)
    }

    fn retract(&mut self, by: &[usize]) {
        Decoder::retract(self, by);
    }

    fn cost(&self) -> Cost {
        Cost { forward_flops: self.flops(), ..Cost::default() }
    }
}
