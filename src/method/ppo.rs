//! PPO (Schulman et al. 2017, arXiv:1707.06347) in the form of Huang et al. 2024, arXiv:2403.17031.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// PPO's constants. γ is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ppo {
    /// Half the width of the interval around 1 in which the ratio counts.
    pub clip: f64,
    /// The same for the value, around its old one.
    pub value_clip: f64,
    pub gae_lambda: f64,
    pub value_coefficient: f64,
    /// Passes over each batch.
    pub epochs: usize,
}

impl Ppo {
    pub const DEFAULT: Ppo = Ppo { clip: 0.2, value_clip: 0.2, gae_lambda: 0.95, value_coefficient: 0.1, epochs: 4 };
}

/// The clipped surrogate, a mean over tokens: −min(ρA, clip(ρ)A) with ρ = π_θ/π_old.
/// All are `[N]`; `old_log_probs` and `advantages` are constants.
pub fn policy_loss(log_probs: &Tensor, old_log_probs: &[f64], advantages: &[f64], clip: f64) -> Result<Tensor> {
    let constant = |x: &[f64]| Tensor::new(x, log_probs.device())?.to_dtype(log_probs.dtype());
    let advantages = constant(advantages)?;
    let ratio = (log_probs - constant(old_log_probs)?)?.exp()?;
    let clipped = inside(&ratio, 1.0 - clip, 1.0 + clip)?;
    // candle's minimum gives both sides a gradient in a tie; the tie within the interval is resolved
    // by the clipped branch, which is equal there in value and in gradient.
    let (plain, clipped) = ((&ratio * &advantages)?, (&clipped * &advantages)?);
    let take_plain = plain.detach().lt(&clipped.detach())?;
    take_plain.where_cond(&plain, &clipped)?.mean_all()?.neg()
}

/// Half the mean of the larger of two squared errors: of the value, and of the value clipped to
/// within `clip` of the old one. All are `[N]`.
pub fn value_loss(values: &Tensor, old_values: &[f64], returns: &[f64], clip: f64) -> Result<Tensor> {
    let constant = |x: &[f64]| Tensor::new(x, values.device())?.to_dtype(values.dtype());
    let (old, returns) = (constant(old_values)?, constant(returns)?);
    let clipped = (inside(&(values - &old)?, -clip, clip)? + &old)?;
    let (plain, clipped) = ((values - &returns)?.sqr()?, (clipped - &returns)?.sqr()?);
    let take_plain = plain.detach().gt(&clipped.detach())?;
    take_plain.where_cond(&plain, &clipped)?.mean_all()? * 0.5
}

/// `x` clamped, with gradient 1 inside and on the bounds and 0 outside
/// (candle's clamp has 1/2 on the bounds).
fn inside(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let free = (x.detach().ge(low)? * x.detach().le(high)?)?;
    free.where_cond(x, &x.detach().clamp(low, high)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// (loss, d loss / d log π) for one token.
    fn at(log_prob: f64, old: f64, advantage: f64) -> (f64, f64) {
        let x = Var::new(&[log_prob], &Device::Cpu).unwrap();
        let loss = policy_loss(&x, &[old], &[advantage], 0.2).unwrap();
        let grad = loss.backward().unwrap().get(&x).map(|g| g.to_vec1::<f64>().unwrap()[0]);
        (loss.to_scalar().unwrap(), grad.unwrap_or(0.0))
    }

    #[test]
    fn the_surrogate_is_clipped_only_where_that_is_pessimistic() {
        let r = |ratio: f64| ratio.ln();
        for (ratio, advantage, loss, grad) in [
            (1.0, 2.0, -2.0, -2.0),
            (1.1, 2.0, -2.2, -2.2),
            (1.5, 2.0, -2.4, 0.0),
            (0.5, 2.0, -1.0, -1.0),
            (1.5, -2.0, 3.0, 3.0),
            (0.5, -2.0, 1.6, 0.0),
        ] {
            let (l, g) = at(r(ratio), 0.0, advantage);
            assert!((l - loss).abs() < 1e-12 && (g - grad).abs() < 1e-12, "{ratio} {advantage}: {l} {g}");
        }
    }

    #[test]
    fn the_value_loss_takes_the_larger_error() {
        let of = |value: f64, old: f64, target: f64| {
            let v = Var::new(&[value], &Device::Cpu).unwrap();
            let loss = value_loss(&v, &[old], &[target], 0.2).unwrap();
            let grad = loss.backward().unwrap().get(&v).map(|g| g.to_vec1::<f64>().unwrap()[0]).unwrap_or(0.0);
            (loss.to_scalar::<f64>().unwrap(), grad)
        };
        let close = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12;
        assert!(close(of(0.1, 0.0, 1.0), (0.405, -0.9)));
        assert!(close(of(0.9, 0.0, 1.0), (0.32, 0.0)));
        assert!(close(of(-0.9, 0.0, 1.0), (0.5 * 1.9 * 1.9, -1.9)));
    }
}
