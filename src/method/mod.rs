//! The methods under comparison. A method is three choices: from which distribution it draws, how it
//! weighs what was drawn, and which loss it minimises. Every method is a constant of one type.
//!
//! All RL methods maximise E\[r\] − β·KL(π_θ‖π_init) with the same β.

mod advantage;
mod maximum_likelihood;
mod ppo;
mod reinforce;
mod weight;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use advantage::{generalized_advantages, leave_one_out, whiten};
pub use maximum_likelihood::maximum_likelihood_loss;
pub use ppo::{Ppo, policy_loss, value_loss};
pub use reinforce::reinforce_loss;
pub use weight::{Level, Treatment, Weight, ess, log_weights};

use crate::mixture::Rule;
use crate::rollout::Proposal;

/// A method: proposal, weight, objective.
///
/// Another one is composed from the same parts:
/// ```
/// use qstar::method::{Method, Treatment, Weight, QSTAR};
/// let raw = Method { name: "qstar_raw".into(), weight: Weight { treatment: Treatment::Raw, ..QSTAR.weight }, ..QSTAR };
/// assert_eq!(raw.proposal, QSTAR.proposal);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    pub name: Cow<'static, str>,
    pub proposal: Proposal,
    pub weight: Weight,
    pub objective: Objective,
}

/// The loss of a method.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The score function with a leave-one-out baseline.
    Reinforce,
    /// The clipped surrogate with a value head.
    Ppo(Ppo),
    /// −log π_θ of what was drawn; rewards are not looked at.
    MaximumLikelihood,
}

/// The control of all α methods: draws from the policy, weight 1.
pub const REINFORCE: Method = Method {
    name: Cow::Borrowed("reinforce"),
    proposal: Proposal::Policy,
    weight: Weight::NONE,
    objective: Objective::Reinforce,
};

/// PPO as in Huang et al. 2024, arXiv:2403.17031.
pub const ON_POLICY: Method = Method {
    name: Cow::Borrowed("on_policy"),
    proposal: Proposal::Policy,
    weight: Weight::NONE,
    objective: Objective::Ppo(Ppo::DEFAULT),
};

/// Imitates the target's own responses.
pub const SFT: Method = Method {
    name: Cow::Borrowed("sft"),
    proposal: Proposal::Target,
    weight: Weight::NONE,
    objective: Objective::MaximumLikelihood,
};

/// Draws every token from the Chernoff point between policy and target and weighs it with π_θ/q.
pub const QSTAR: Method = Method {
    name: Cow::Borrowed("qstar"),
    proposal: Proposal::Mixture(Rule::Q_STAR),
    weight: Weight { level: Level::Token, treatment: Treatment::CLIPPED },
    objective: Objective::Reinforce,
};

/// The methods of the first comparison, in the order of its tables.
pub const ALL: [Method; 4] = [REINFORCE, ON_POLICY, SFT, QSTAR];

impl Method {
    /// One of [`ALL`] by its name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn by_name(name: &str) -> anyhow::Result<Method> {
        ALL.into_iter().find(|m| m.name == name).ok_or_else(|| {
            let known: Vec<_> = ALL.iter().map(|m| m.name.to_string()).collect();
            anyhow::anyhow!("unknown method {name:?}; known are {}", known.join(", "))
        })
    }
}
