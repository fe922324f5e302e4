//! Where the responses of a method come from.

use serde::{Deserialize, Serialize};

use super::Rejection;
use crate::rollout::Proposal;
use crate::target::BestOfN;

/// Where the responses of a step come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Drawn token by token.
    Drawn(Proposal),
    /// Drawn from the policy; some are accepted, and the update learns from those alone.
    Accepted(Rejection),
    /// Picked from n responses of the policy to each prompt.
    Picked(BestOfN),
    /// The task's demonstrations, as many a prompt as other methods draw responses.
    Demonstrations,
    /// The task's preference pairs; a pair stands for two responses.
    Preferences,
}

impl Source {
    /// Whether π_t is needed.
    pub fn needs_target(self) -> bool {
        matches!(self, Source::Drawn(Proposal::Target | Proposal::Mixture(_)))
    }

    /// The samples of one prompt, where a method draws k responses to each.
    pub fn samples(self, k: usize) -> usize {
        match self {
            Source::Picked(best) => best.n,
            _ => k,
        }
    }

    /// Whether rewards decide what the update learns from.
    pub fn needs_rewards(self) -> bool {
        matches!(self, Source::Accepted(_) | Source::Picked(_))
    }
}
