//! Speculative sampling: a cheap model drafts some tokens, the expensive ones read them all at once, and what is kept is
//! distributed exactly as q.
//!
//! Leviathan et al. 2022 (arXiv:2211.17192) and Chen et al. 2023 (arXiv:2302.01318), with q* in the place of the large
//! model. A drafted token x is accepted with probability min(1, q(x)/d(x)), d being what it was drafted from; at the first
//! rejection a token is drawn from the normalised positive part of q − d, and when all are accepted one more is drawn from
//! q. Falling back to q itself on a rejection, as is sometimes done, gives another distribution: d min(1, q/d) + c q.
//!
//! With several candidates for a place (Yang et al. 2024, arXiv:2401.06706; Miao et al. 2023, arXiv:2305.09781): k chains
//! are drafted independently. A rejected one leaves q ← (q − d)⁺/Z for the next; when one is accepted, the chains that
//! begin with the same tokens go on. Every token that is kept still has the law q: its candidates are draws from d that
//! nothing before depended on.
//!
//! What it costs and when it pays: [`formula`] for one response, [`BatchCosts`] for a batch that runs until its last response
//! ends, [`measure_costs`] for this machine.

mod batch;
pub mod formula;
mod measure;
mod reader;
mod sampler;
mod verify;

use std::ops::AddAssign;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use self::formula::{Acceptance, Costs};
use super::Response;
use crate::models::Network;
use crate::target::Cost;
pub use batch::{BatchCosts, PerRow};
pub use measure::measure_costs;
pub use verify::{Place, Verified, residual, verify};

/// How tokens are drafted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speculation {
    pub gamma: Gamma,
    /// Chains that are drafted for every response, each of γ tokens.
    #[serde(default = "one_chain")]
    pub candidates: usize,
    /// The draft is tempered and truncated as q is, and besides its logits are divided by this. Any keeps the distribution;
    /// one that brings d nearer to q accepts more.
    #[serde(default = "untempered")]
    pub draft_temperature: f64,
}

/// What drafts.
#[derive(Clone, Copy)]
pub enum Draft<'a> {
    /// The policy itself: q needs its logits anyway.
    Policy,
    /// Another model with the same vocabulary.
    Model(&'a Network),
}

/// How many tokens are drafted before the expensive models read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gamma {
    Fixed(usize),
    /// Chosen anew for every response and round: the number, from 0 up to `most`, that the [`formula`] likes best for the
    /// response's own share of accepted tokens; 0 is the standard sampler, with which the response then goes on. Costs are
    /// in units of one reading of one token by the expensive models: that of one drafted token, and the share of such a
    /// reading that every token more adds to it, from 0 to 1. They are given, not measured while drawing, so that the same seed gives the same draws; see
    /// [`Costs::adaptive`].
    Adaptive {
        most: usize,
        draft_cost: f64,
        #[serde(default)]
        token_cost: f64,
    },
}

impl Speculation {
    /// One chain of `gamma` tokens.
    pub const fn fixed(gamma: usize) -> Self {
        Self { gamma: Gamma::Fixed(gamma), candidates: 1, draft_temperature: 1.0 }
    }

    /// # Errors
    /// No token to draft, no chain, a temperature or a cost that is not a positive number.
    pub fn check(&self) -> Result<()> {
        ensure!(self.gamma.most() > 0, "speculation drafts at least one token: γ is 0");
        ensure!(self.candidates > 0, "speculation needs a chain: candidates is 0");
        let temperature = self.draft_temperature;
        ensure!((1e-6..=1e6).contains(&temperature), "the draft's temperature must lie in [1e-6, 1e6]: {temperature}");
        if let Gamma::Adaptive { draft_cost, token_cost, .. } = self.gamma {
            ensure!(draft_cost.is_finite() && draft_cost > 0.0, "a draft's cost is a positive number: {draft_cost}");
            ensure!((0.0..=1.0).contains(&token_cost), "what a token more costs is a share from 0 to 1: {token_cost}");
        }
        Ok(())
    }
}

impl Gamma {
    /// How many tokens are drafted next for a response at whose places `accepted` of `tested` drafted tokens were accepted,
    /// and which has room for `room` of them. `further` is that of [`Costs`].
    pub fn next(self, tested: usize, accepted: usize, further: usize, room: usize) -> usize {
        match self {
            Gamma::Fixed(gamma) => gamma.min(room),
            Gamma::Adaptive { most, draft_cost, token_cost } => {
                // As if it had been tested four times before, and accepted three: who does not draft learns nothing, so
                // hope comes first.
                let acceptance = Acceptance::equal((accepted as f64 + 3.0) / (tested as f64 + 4.0));
                let standard = further as f64 * draft_cost + 1.0;
                Costs { standard, draft: draft_cost, further, verify: 1.0 - token_cost, token: token_cost }
                    .best_gamma(acceptance, most.min(room))
            }
        }
    }

    fn most(self) -> usize {
        match self {
            Gamma::Fixed(gamma) => gamma,
            Gamma::Adaptive { most, .. } => most,
        }
    }
}

fn one_chain() -> usize {
    1
}

fn untempered() -> f64 {
    1.0
}

/// What speculation came to, over all responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Rounds of responses: each is one reading of the expensive models, for one response.
    pub rounds: u64,
    /// Tokens that were drafted, in all chains.
    pub drafted: u64,
    /// Places at which drafted tokens were tested, and at which one was accepted; and how many of each were the first of
    /// their round, where all candidates are.
    pub tested: u64,
    pub accepted: u64,
    pub tested_first: u64,
    pub accepted_first: u64,
    /// Tokens of the responses.
    pub tokens: u64,
    /// Passes of the draft, and of the models that verify, over the whole batch; the prompts' are not among them.
    pub draft_passes: u64,
    pub verify_passes: u64,
    /// Of reading the prompts, of drafting, and of all behind it.
    pub seconds_prompts: f64,
    pub seconds_draft: f64,
    pub seconds_verify: f64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.drafted += other.drafted;
        self.tested += other.tested;
        self.accepted += other.accepted;
        self.tested_first += other.tested_first;
        self.accepted_first += other.accepted_first;
        self.tokens += other.tokens;
        self.draft_passes += other.draft_passes;
        self.verify_passes += other.verify_passes;
        self.seconds_prompts += other.seconds_prompts;
        self.seconds_draft += other.seconds_draft;
        self.seconds_verify += other.seconds_verify;
    }
}

impl Counts {
    /// The share of the tested places at which a token was accepted; none where nothing was tested.
    pub fn acceptance(&self) -> Option<f64> {
        (self.tested > 0).then(|| self.accepted as f64 / self.tested as f64)
    }

    /// The same at the first place of a round and at the later ones, for the [`formula`].
    pub fn acceptances(&self) -> Option<Acceptance> {
        let share = |accepted: u64, tested: u64| (tested > 0).then(|| accepted as f64 / tested as f64);
        let first = share(self.accepted_first, self.tested_first)?;
        let later = share(self.accepted - self.accepted_first, self.tested - self.tested_first);
        Some(Acceptance { first, later: later.unwrap_or(first) })
    }

    /// Tokens a round; none without a round.
    pub fn tokens_per_round(&self) -> Option<f64> {
        (self.rounds > 0).then(|| self.tokens as f64 / self.rounds as f64)
    }
}

/// One round of the whole batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Round {
    /// Responses that were still going.
    pub rows: usize,
    /// The most tokens that were drafted for one of them, and the least.
    pub gamma: usize,
    pub least: usize,
    pub draft_passes: u64,
    pub seconds_draft: f64,
    pub seconds_verify: f64,
}

/// Responses as of a [`Rollout`](super::Rollout), and what speculation came to.
#[derive(Debug, Clone)]
pub struct Speculated {
    pub responses: Vec<Response>,
    pub cost: Cost,
    pub counts: Counts,
    pub rounds: Vec<Round>,
}
