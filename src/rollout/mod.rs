//! Drawing responses from a proposal q.
//!
//! Every row has a generator of its own, so a response does not depend on the batch that it is
//! drawn in. Rows that have ended leave the batch.

mod sampler;
pub mod speculative;
mod stop;

use serde::{Deserialize, Serialize};

use crate::mixture::{Rule, Solution};

pub use sampler::{Rollout, Sampler};
pub use speculative::{Draft, Gamma, Speculated, Speculation};
pub use stop::StopStrings;

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

/// One drawn token. Log-probabilities are natural.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    pub token: u32,
    /// Under the distribution that it was drawn from: tempered, truncated, renormalised. Importance weights divide by
    /// this one. A truncated distribution has no mass on what was cut, and weights cannot bring it back: see
    /// [`Truncation`](crate::mixture::Truncation).
    pub log_q: f64,
    /// The log of the mass that the truncation kept, 0 without one: log q + this is of q before it was truncated.
    pub log_kept: f64,
    /// Under the policy at temperature 1, of the whole vocabulary, where the policy was run.
    pub log_p: Option<f64>,
    /// Under the target at temperature 1, of the whole vocabulary, where the target was run.
    pub log_t: Option<f64>,
    /// α and the diagnostics of the mixture, tempered and not truncated, where there was one.
    pub mixture: Option<Solution>,
}

/// One response, the token that ended it included.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub draws: Vec<Draw>,
    /// Whether it ended by itself, by a stop token or a stop string; otherwise it was cut at the limit.
    pub ended: bool,
}

impl Response {
    pub fn tokens(&self) -> Vec<u32> {
        self.draws.iter().map(|draw| draw.token).collect()
    }
}
