//! PPO (Schulman et al. 2017, arXiv:1707.06347) in the form of Huang et al. 2024, arXiv:2403.17031.

use serde::{Deserialize, Serialize};

use super::{KlEstimator, Loss};

/// PPO's constants. γ is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ppo {
    /// Half the width of the interval around 1 in which the ratio counts.
    pub clip: f64,
    /// The same for the value, around its old one.
    pub value_clip: f64,
    pub gae_lambda: f64,
    pub value_coefficient: f64,
    /// Whether the advantages of a batch are shifted and scaled to mean 0 and variance 1.
    pub whiten: bool,
    /// Passes over each batch.
    pub epochs: usize,
    /// Of the penalty that every token's reward pays.
    pub kl: KlEstimator,
}

impl Ppo {
    pub const DEFAULT: Ppo = Ppo {
        clip: 0.2,
        value_clip: 0.2,
        gae_lambda: 0.95,
        value_coefficient: 0.1,
        whiten: true,
        epochs: 4,
        kl: KlEstimator::K1,
    };
}

/// The clipped surrogate over tokens: (1/n) Σ max(−ρA, −clip(ρ)A) with ρ = π_θ/π_old. `old_log_probs` are those of the
/// distribution that the tokens were drawn from; n is the number of tokens.
///
/// Outside of the interval a token whose advantage would push it further out has no gradient: from the second
/// pass on, and from the first where π_old is not π_θ, the estimate is biased by what those tokens would have added.
pub fn policy_loss(log_probs: &[f64], old_log_probs: &[f64], advantages: &[f64], clip: f64, tokens: f64) -> Loss {
    let mut loss = Loss::ZERO;
    for ((log_prob, old), advantage) in log_probs.iter().zip(old_log_probs).zip(advantages) {
        let (value, derivative) = clipped(log_prob - old, *advantage, clip);
        loss.push(value / tokens, derivative / tokens);
    }
    loss
}

/// max(−ρA, −clip(ρ)A) for ρ = e^log_ratio, and its derivative by log ρ.
pub(super) fn clipped(log_ratio: f64, advantage: f64, clip: f64) -> (f64, f64) {
    let ratio = log_ratio.exp();
    let (plain, bounded) = (-ratio * advantage, -ratio.clamp(1.0 - clip, 1.0 + clip) * advantage);
    if plain >= bounded { (plain, plain) } else { (bounded, 0.0) }
}

/// Half the mean of the larger of two squared errors: of the value, and of the value clipped to
/// within `clip` of the old one; the derivatives are by the values.
pub fn value_loss(values: &[f64], old_values: &[f64], returns: &[f64], clip: f64, tokens: f64) -> Loss {
    let mut loss = Loss::ZERO;
    for ((value, old), wanted) in values.iter().zip(old_values).zip(returns) {
        let (plain, bounded) = (value - wanted, value.clamp(old - clip, old + clip) - wanted);
        let derivative = if plain.abs() >= bounded.abs() { plain } else { 0.0 };
        loss.push(0.5 * plain.powi(2).max(bounded.powi(2)) / tokens, derivative / tokens);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::super::loss::check_derivatives;
    use super::*;

    #[test]
    fn the_surrogate_is_clipped_only_where_that_is_pessimistic() {
        for (ratio, advantage, loss, derivative) in [
            (1.0, 2.0, -2.0, -2.0),
            (1.1, 2.0, -2.2, -2.2),
            (1.5, 2.0, -2.4, 0.0),
            (0.5, 2.0, -1.0, -1.0),
            (1.5, -2.0, 3.0, 3.0),
            (0.5, -2.0, 1.6, 0.0),
        ] {
            let found = policy_loss(&[f64::ln(ratio)], &[0.0], &[advantage], 0.2, 1.0);
            let (value, by) = (found.value, found.derivatives[0]);
            assert!((value - loss).abs() < 1e-12 && (by - derivative).abs() < 1e-12, "{ratio} {advantage}: {found:?}");
        }
        let (old, advantages) = ([-1.0, -0.4, -2.0, -1.5], [1.0, -0.5, 2.0, -3.0]);
        check_derivatives(&[-1.1, 0.1, -1.0, -2.5], |x| policy_loss(x, &old, &advantages, 0.2, 3.0));
    }

    #[test]
    fn the_value_loss_takes_the_larger_error() {
        let of = |value: f64, old: f64, wanted: f64| {
            let loss = value_loss(&[value], &[old], &[wanted], 0.2, 1.0);
            (loss.value, loss.derivatives[0])
        };
        let close = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12;
        assert!(close(of(0.1, 0.0, 1.0), (0.405, -0.9)));
        assert!(close(of(0.9, 0.0, 1.0), (0.32, 0.0)));
        assert!(close(of(-0.9, 0.0, 1.0), (0.5 * 1.9 * 1.9, -1.9)));
        check_derivatives(&[0.1, 0.9, -0.9], |x| value_loss(x, &[0.0; 3], &[1.0; 3], 0.2, 2.0));
    }
}
