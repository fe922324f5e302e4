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
//! What it costs and when it pays: [`formula`].

pub mod formula;
mod reader;
mod sampler;
mod verify;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Response;
use crate::models::Network;
use crate::target::Cost;
pub use verify::{Place, Verified, residual, verify};

/// How tokens are drafted.
#[derive(Clone, Copy)]
pub struct Speculation<'a> {
    pub draft: Draft<'a>,
    pub gamma: Gamma,
    /// Chains that are drafted for every response, each of γ tokens.
    pub candidates: usize,
    /// The draft is tempered and truncated as q is, and besides its logits are divided by this. Any keeps the distribution;
    /// one that brings d nearer to q accepts more.
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
    /// Chosen anew for every response and round: the number, up to `most`, that the [`formula`] likes best for the
    /// response's own share of accepted tokens. `draft_cost` is the cost of one drafted token over that of one reading of the
    /// expensive models; it is given, not measured while drawing, so that the same seed gives the same draws.
    Adaptive {
        most: usize,
        draft_cost: f64,
    },
}

impl Speculation<'_> {
    /// The policy drafts `gamma` tokens in one chain.
    pub fn by_policy(gamma: usize) -> Self {
        Self { draft: Draft::Policy, gamma: Gamma::Fixed(gamma), candidates: 1, draft_temperature: 1.0 }
    }

    /// # Errors
    /// No token to draft, no chain, a temperature or a cost that is not a positive number.
    pub fn check(&self) -> Result<()> {
        ensure!(self.gamma.most() > 0, "speculation drafts at least one token: γ is 0");
        ensure!(self.candidates > 0, "speculation needs a chain: candidates is 0");
        let temperature = self.draft_temperature;
        ensure!((1e-6..=1e6).contains(&temperature), "the draft's temperature must lie in [1e-6, 1e6]: {temperature}");
        if let Gamma::Adaptive { draft_cost, .. } = self.gamma {
            ensure!(draft_cost.is_finite() && draft_cost > 0.0, "a draft's cost is a positive number: {draft_cost}");
        }
        Ok(())
    }
}

impl Gamma {
    fn most(self) -> usize {
        match self {
            Gamma::Fixed(gamma) => gamma,
            Gamma::Adaptive { most, .. } => most,
        }
    }
}

/// What speculation came to, over all responses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Rounds of responses: each is one reading of the expensive models, for one response.
    pub rounds: u64,
    /// Tokens that were drafted, in all chains.
    pub drafted: u64,
    /// Places at which drafted tokens were tested, and at which one was accepted.
    pub tested: u64,
    pub accepted: u64,
    /// Tokens of the responses.
    pub tokens: u64,
    /// Passes of the draft, and of the models that verify, over the whole batch; the prompts' are not among them.
    pub draft_passes: u64,
    pub verify_passes: u64,
    pub seconds_draft: f64,
    pub seconds_verify: f64,
}

impl Counts {
    /// The share of the tested places at which a token was accepted.
    pub fn acceptance(&self) -> f64 {
        self.accepted as f64 / self.tested as f64
    }

    /// Tokens a round.
    pub fn tokens_per_round(&self) -> f64 {
        self.tokens as f64 / self.rounds as f64
    }
}

/// Responses as of a [`Rollout`](super::Rollout), and what speculation came to.
#[derive(Debug, Clone)]
pub struct Speculated {
    pub responses: Vec<Response>,
    pub cost: Cost,
    pub counts: Counts,
}
