//! Whole distributions: what a draw is taken from, outcome by outcome.

use anyhow::Result;

use super::batch::{root_of_rows, with_split};
use super::draw::{keep, scaled};
use super::softmax::Weights;
use super::{Rule, Solution, Temperature, Truncation};
use crate::simd::{self, Real};

/// A distribution over the vocabulary, in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// They sum to 1 but for rounding.
    pub probabilities: Vec<f64>,
    /// The log of the mass that the truncation kept, 0 without one.
    pub log_kept: f64,
    /// α and the diagnostics of a mixture, tempered and before any truncation.
    pub solution: Option<Solution>,
}

/// What [`draw_truncated`](super::draw_truncated) draws from.
///
/// # Errors
/// As there.
///
/// ```
/// use qstar::mixture::{Rule, Temperature, Truncation, distribution};
/// let q = distribution(&[0.0, 2.0, 1.0], &[1.0, 2.0, 0.0], &Rule::Q_STAR, &Temperature::ONE, &Truncation::NONE)?;
/// assert!((q.probabilities[0] - q.probabilities[2]).abs() < 1e-9);
/// assert!((q.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
pub fn distribution(
    policy: &[f32],
    target: &[f32],
    rule: &Rule,
    temperature: &Temperature,
    truncation: &Truncation,
) -> Result<Distribution> {
    temperature.check()?;
    truncation.check()?;
    let (own_policy, own_target) = (scaled(policy, temperature.policy), scaled(target, temperature.target));
    let (policy, target) = (own_policy.as_deref().unwrap_or(policy), own_target.as_deref().unwrap_or(target));
    with_split(|split| {
        split.fill_f32(policy, target)?;
        let root = root_of_rows(split, policy, target, rule)?;
        let (solution, q) = split.diagnose(root, temperature.mixture);
        let exponent = |outcome: usize| {
            if !split.joint(policy, target, outcome) {
                return f64::NEG_INFINITY;
            }
            let (y, delta) = split.relative(policy, target, outcome);
            q.a * y + q.b * delta - q.log_w
        };
        let exponents: Vec<f64> = (0..policy.len()).map(exponent).collect();
        let kept = truncation
            .cuts(policy.len())
            .then(|| keep(split, policy, target, truncation, solution.alpha, temperature.mixture));
        Ok(normalised(exponents, kept, Some(solution)))
    })
}

/// What [`draw_softmax_truncated`](super::draw_softmax_truncated) draws from.
///
/// # Errors
/// As there.
pub fn distribution_softmax(logits: &[f32], temperature: f64, truncation: &Truncation) -> Result<Distribution> {
    truncation.check()?;
    let (weights, total) = Weights::of(logits, temperature)?;
    let log_total = total.ln();
    let exponents: Vec<f64> =
        logits.iter().map(|&x| (f64::from(x) - f64::from(weights.top)) / temperature - log_total).collect();
    let kept = truncation.cuts(logits.len()).then(|| truncation.keep(logits, weights.top, temperature));
    Ok(normalised(exponents, kept, None))
}

/// From the logs of the probabilities before truncation, normalised but for rounding.
fn normalised(exponents: Vec<f64>, kept: Option<Vec<u32>>, solution: Option<Solution>) -> Distribution {
    let mut probabilities = exponents;
    simd::dispatch(
        #[inline(always)]
        || {
            for x in &mut probabilities {
                *x = if *x < NO_MASS { 0.0 } else { Real::exp(*x) };
            }
        },
    );
    let all: f64 = probabilities.iter().sum();
    let mut sum = all;
    if let Some(kept) = kept {
        let mut cut = vec![0.0; probabilities.len()];
        kept.iter().for_each(|&outcome| cut[outcome as usize] = probabilities[outcome as usize]);
        probabilities = cut;
        sum = probabilities.iter().sum();
    }
    probabilities.iter_mut().for_each(|x| *x /= sum);
    Distribution { probabilities, log_kept: (sum / all).ln().min(0.0), solution }
}

/// Below this exponent, in nats, there is no mass in f64.
const NO_MASS: f64 = -700.0;
