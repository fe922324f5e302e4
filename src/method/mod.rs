//! The methods under comparison. A method is three choices: where its responses come from, how it
//! weighs them, and which loss it minimises. Every method is a constant of one type, in the file `table`, with a screen of
//! documentation: the formula, its source, what is biased and why, what it costs.
//!
//! All RL methods maximise E\[r\] − β·KL(π_θ‖π_init) with the same β.

mod advantage;
mod dpo;
mod kl;
mod loss;
mod ppo;
mod reinforce;
mod rejection;
mod source;
mod surrogate;
mod table;
mod weight;

use std::borrow::Cow;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

pub use advantage::{generalized_advantages, group_advantages, leave_one_out, whiten};
pub use dpo::{Dpo, DpoLoss};
pub use kl::KlEstimator;
pub use loss::Loss;
pub use ppo::{Ppo, policy_loss, value_loss};
pub use reinforce::{maximum_likelihood_loss, reinforce_loss};
pub use rejection::{Bound, Rejection};
pub use source::Source;
pub use surrogate::{Advantage, Aggregate, Penalty, Share, Surrogate, Tokens};
pub use table::{
    ALL, DPO, ENTROPY, ESS_BALANCE, GRPO, OFF_POLICY, ON_POLICY, QSTAR, QSTAR_PPO, REINFORCE, REJECTION, RLOO, SFT,
    SNR_MAX, STUDY, UNIFORM,
};
pub use weight::{Level, Over, Treatment, Weight, ess, log_weights};

/// A method: source, weight, objective.
///
/// Another one is composed from the same parts:
/// ```
/// use qstar::method::{Method, Treatment, Weight, QSTAR};
/// let raw = Method { name: "qstar_raw".into(), weight: Weight { treatment: Treatment::Raw, ..QSTAR.weight }, ..QSTAR };
/// assert_eq!(raw.source, QSTAR.source);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    pub name: Cow<'static, str>,
    pub source: Source,
    /// Of an objective that weighs: REINFORCE.
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
    /// The clipped surrogate with advantages from the group.
    Surrogate(Surrogate),
    /// −log π_θ of each response; rewards are not looked at.
    MaximumLikelihood,
    /// Of preference pairs.
    Dpo(Dpo),
}

impl Method {
    /// One of [`ALL`] by its name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn by_name(name: &str) -> Result<Method> {
        match ALL.into_iter().find(|method| method.name == name) {
            Some(method) => Ok(method),
            None => bail!("unknown method {name:?}; known are {}", ALL.map(|method| method.name).join(", ")),
        }
    }

    /// Whether its update looks at rewards: then they are charged.
    pub fn needs_rewards(&self) -> bool {
        let learns = !matches!(self.objective, Objective::MaximumLikelihood | Objective::Dpo(_));
        learns || self.source.needs_rewards()
    }

    /// Whether its update looks at log π_init of the responses.
    pub fn needs_reference(&self) -> bool {
        self.objective != Objective::MaximumLikelihood || matches!(self.source, Source::Accepted(_))
    }

    /// # Errors
    /// Choices that do not fit each other; they are named.
    pub fn check(&self) -> Result<()> {
        let (name, weighs) = (&self.name, self.weight.treatment != Treatment::None);
        match (self.objective, self.source) {
            (Objective::Dpo(_), Source::Preferences) | (Objective::MaximumLikelihood, _) => {}
            (Objective::Dpo(_), _) => bail!("{name}: DPO learns from the source Preferences alone"),
            (_, Source::Preferences) => bail!("{name}: preference pairs are for DPO and maximum likelihood"),
            (_, Source::Demonstrations) => bail!("{name}: demonstrations are for maximum likelihood"),
            (_, Source::Accepted(_)) => bail!("{name}: what was accepted is for maximum likelihood"),
            (Objective::Reinforce, _) => return Ok(()),
            (_, Source::Picked(_)) => bail!("{name}: responses picked from n are for REINFORCE, which weighs them"),
            (Objective::Ppo(_) | Objective::Surrogate(_), Source::Drawn(_)) => {}
        }
        if weighs {
            bail!("{name}: only REINFORCE weighs its responses; give it Weight::NONE");
        }
        Ok(())
    }
}
