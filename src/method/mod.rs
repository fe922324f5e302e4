//! The methods under comparison. A method is three choices: where its responses come from, how it
//! weighs them, and which loss it minimises. Every method is a constant of one type, in the file `table`, with a screen of
//! documentation: the formula, its source, what is biased and why, what it costs.
//!
//! All RL methods maximise E\[r\] − β·KL(π_θ‖π_init) with the same β; GRPO's rewards are divided by their deviation, which
//! makes β relative to it. `rejection` and `dpo` have a β of their own, `sft` has none.

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

use anyhow::{Context, Result, bail, ensure};
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

impl Objective {
    /// Whether it looks at returns: rewards and log π_θ of before the update.
    pub fn needs_returns(self) -> bool {
        !matches!(self, Objective::MaximumLikelihood | Objective::Dpo(_))
    }
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
        self.objective.needs_returns() || self.source.needs_rewards()
    }

    /// Whether its update looks at log π_init of the responses.
    pub fn needs_reference(&self) -> bool {
        self.objective != Objective::MaximumLikelihood || matches!(self.source, Source::Accepted(_))
    }

    /// # Errors
    /// Constants outside of their range, choices that do not fit each other; they are named.
    pub fn check(&self) -> Result<()> {
        self.check_constants().with_context(|| format!("the method {}", self.name))?;
        self.check_choices()
    }

    fn check_constants(&self) -> Result<()> {
        let within = |name: &str, x: f64, low: f64, high: f64| -> Result<()> {
            ensure!((low..=high).contains(&x), "{name} lies in [{low}, {high}]: {x}");
            Ok(())
        };
        let positive = |name: &str, x: f64| -> Result<()> {
            ensure!(x > 0.0 && x.is_finite(), "{name} is a positive number: {x}");
            Ok(())
        };
        match self.weight.treatment {
            Treatment::Clipped { low, high } => {
                ensure!(0.0 <= low && low <= high, "weights are clipped into an interval from 0 up: [{low}, {high}]")
            }
            Treatment::Truncated { high } => positive("the bound of weights", high)?,
            Treatment::None | Treatment::Raw | Treatment::Normalized { .. } => {}
        }
        match self.source {
            Source::Accepted(rejection) => positive("beta of rejection", rejection.beta)?,
            Source::Picked(best) => {
                positive("beta of best of n", best.beta)?;
                ensure!(best.n >= 2, "best of n needs two responses: {}", best.n);
            }
            Source::Drawn(_) | Source::Demonstrations | Source::Preferences => {}
        }
        match self.objective {
            Objective::Ppo(ppo) => {
                within("clip", ppo.clip, 0.0, 1.0)?;
                within("gae_lambda", ppo.gae_lambda, 0.0, 1.0)?;
                ensure!(ppo.value_clip >= 0.0, "value_clip is not negative: {}", ppo.value_clip);
                ensure!(ppo.epochs > 0, "an update needs a pass over its batch: epochs is 0");
            }
            Objective::Surrogate(surrogate) => {
                within("clip", surrogate.clip, 0.0, 1.0)?;
                ensure!(surrogate.epochs > 0, "an update needs a pass over its batch: epochs is 0");
            }
            Objective::Dpo(dpo) => {
                positive("beta of DPO", dpo.beta)?;
                within("label_smoothing", dpo.label_smoothing, 0.0, 0.5)?;
            }
            Objective::Reinforce | Objective::MaximumLikelihood => {}
        }
        Ok(())
    }

    fn check_choices(&self) -> Result<()> {
        let (name, weighs) = (&self.name, self.weight.treatment != Treatment::None);
        match (self.objective, self.source) {
            (Objective::Dpo(_), Source::Preferences) => {}
            (Objective::Dpo(_), _) => bail!("{name}: DPO learns from the source Preferences alone"),
            (_, Source::Preferences) => bail!("{name}: preference pairs are for DPO: half of them are rejected ones"),
            (Objective::MaximumLikelihood, _) => {}
            (_, Source::Demonstrations) => bail!("{name}: demonstrations are for maximum likelihood"),
            (_, Source::Accepted(_)) => bail!("{name}: what was accepted is for maximum likelihood"),
            (Objective::Reinforce, Source::Picked(_)) if !weighs => {
                bail!("{name}: without their weights, responses picked from n are no estimate of the gradient")
            }
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
