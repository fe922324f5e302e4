//! From logits straight to a token of q, with all that is known of it.

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::batch::{root_of_rows, with_split};
use super::split::{Split, Weighed};
use super::{Rule, Solution, Truncation, truncation};
use crate::simd;

/// Temperatures: of the two models, whose logits are divided by theirs, and of the mixture, q ∝ q_α^(1/T).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    pub policy: f64,
    pub target: f64,
    pub mixture: f64,
}

impl Temperature {
    /// 1 everywhere.
    pub const ONE: Temperature = Temperature { policy: 1.0, target: 1.0, mixture: 1.0 };

    /// # Errors
    /// A temperature outside of [1e-6, 1e6]; for draws without a temperature there is [`Truncation::GREEDY`].
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("policy", self.policy), ("target", self.target), ("mixture", self.mixture)] {
            ensure!((1e-6..=1e6).contains(&value), "the temperature of the {name} must lie in [1e-6, 1e6]: {value}");
        }
        Ok(())
    }
}

/// A token drawn from q. Log-probabilities are natural.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    pub token: u32,
    /// Under q as it was drawn from: tempered, truncated and renormalised.
    pub log_q: f64,
    /// The log of the mass that the truncation kept, 0 without one: log q + this is of q before it.
    pub log_kept: f64,
    /// Under policy and target at their own temperatures, untruncated.
    pub log_p: f64,
    pub log_t: f64,
    /// α and the diagnostics of q, tempered and before any truncation: both ESS of a truncated q would be 0.
    pub solution: Solution,
}

/// Draws one token from q, by inversion of its cumulated probabilities at `uniform` in [0, 1).
///
/// # Errors
/// What makes the two rows no pair (see [`super::Pair::from_logits`]), a temperature outside of
/// [1e-6, 1e6], a `uniform` outside of [0, 1).
///
/// ```
/// use qstar::mixture::{Rule, Temperature, draw};
/// let drawn = draw(&[0.0, 2.0, 1.0], &[1.0, 2.0, 0.0], &Rule::Q_STAR, &Temperature::ONE, 0.3)?;
/// assert_eq!(drawn.token, 1);
/// assert!((drawn.solution.alpha - 0.5).abs() < 1e-9);
/// # anyhow::Ok(())
/// ```
pub fn draw(policy: &[f32], target: &[f32], rule: &Rule, temperature: &Temperature, uniform: f64) -> Result<Drawn> {
    draw_truncated(policy, target, rule, temperature, &Truncation::NONE, uniform)
}

/// As [`draw`], from what `truncation` keeps of q: α is solved on the whole vocabulary, then q is tempered, then
/// truncated.
///
/// # Errors
/// As [`draw`]; `top_k` 0, `top_p` outside of (0, 1].
pub fn draw_truncated(
    policy: &[f32],
    target: &[f32],
    rule: &Rule,
    temperature: &Temperature,
    truncation: &Truncation,
    uniform: f64,
) -> Result<Drawn> {
    temperature.check()?;
    truncation.check()?;
    ensure!((0.0..1.0).contains(&uniform), "a uniform number lies in [0, 1): {uniform}");
    let (own_policy, own_target) = (scaled(policy, temperature.policy), scaled(target, temperature.target));
    let (policy, target) = (own_policy.as_deref().unwrap_or(policy), own_target.as_deref().unwrap_or(target));
    with_split(|split| {
        split.fill_f32(policy, target)?;
        let root = root_of_rows(split, policy, target, rule)?;
        let (solution, q) = split.diagnose(root, temperature.mixture);
        let (token, log_kept) = if truncation.cuts(policy.len()) {
            let kept = keep(split, policy, target, truncation, solution.alpha, temperature.mixture);
            invert_kept(split, &q, policy, target, &kept, uniform)
        } else {
            (invert(split, &q, uniform), 0.0)
        };
        let (y, delta) = split.relative(policy, target, token);
        let (log_p, log_t) = split.log_probs(y, delta);
        let log_q = q.a * y + q.b * delta - q.log_w - log_kept;
        Ok(Drawn { token: token as u32, log_q, log_kept, log_p, log_t, solution })
    })
}

/// One token for each of the rows of `vocabulary` logits, in parallel.
///
/// # Errors
/// As [`draw`], with the row's number; slices that are not whole rows.
pub fn draw_rows(
    policy: &[f32],
    target: &[f32],
    vocabulary: usize,
    rule: &Rule,
    temperature: &Temperature,
    uniforms: &[f64],
) -> Result<Vec<Drawn>> {
    super::batch::whole_rows(policy.len(), target.len(), vocabulary)?;
    let rows = policy.len() / vocabulary;
    ensure!(uniforms.len() == rows, "{rows} rows need as many uniform numbers, not {}", uniforms.len());
    (policy.par_chunks_exact(vocabulary), target.par_chunks_exact(vocabulary), uniforms)
        .into_par_iter()
        .enumerate()
        .map(|(row, (p, t, &uniform))| draw(p, t, rule, temperature, uniform).with_context(|| format!("row {row}")))
        .collect()
}

/// A row of logits over a temperature, if that is not 1.
pub(super) fn scaled(row: &[f32], temperature: f64) -> Option<Vec<f32>> {
    (temperature != 1.0).then(|| row.iter().map(|&x| (f64::from(x) / temperature) as f32).collect())
}

/// The outcomes that the truncation keeps of q_α^(1/temperature), in ascending order.
pub(super) fn keep(
    split: &Split,
    policy: &[f32],
    target: &[f32],
    truncation: &Truncation,
    alpha: f64,
    temperature: f64,
) -> Vec<u32> {
    // Relative to the largest of the heavy outcomes: f32 has its digits where the mass is.
    let (p, t) = (f64::from(policy[split.reference]), f64::from(target[split.reference]));
    let above = split.head.top(1.0, alpha) - alpha * split.reference_delta;
    let zero = t + alpha * (p - t) + above.max(0.0);
    let mut exponents = vec![0.0; policy.len()];
    let [least_p, least_t] = split.least;
    let top = simd::dispatch(
        #[inline(always)]
        || {
            // One formula for heavy and light outcomes, so that equal ones stay equal.
            for (exponent, (&p, &t)) in exponents.iter_mut().zip(policy.iter().zip(target)) {
                let (p, t) = (f64::from(p), f64::from(t));
                let mixed = (t + alpha * (p - t) - zero) as f32;
                *exponent = if (p > least_p) & (t > least_t) { mixed } else { f32::NEG_INFINITY };
            }
            simd::max(&exponents)
        },
    );
    truncation.keep(&exponents, top, temperature)
}

/// A token of what was kept of q, and the log of its mass in q.
fn invert_kept(split: &Split, q: &Weighed, policy: &[f32], target: &[f32], kept: &[u32], uniform: f64) -> (usize, f64) {
    let log_q = kept.iter().map(|&outcome| {
        let (y, delta) = split.relative(policy, target, outcome as usize);
        q.a * y + q.b * delta - q.log_w
    });
    let (place, log_kept) = truncation::invert(&log_q.collect::<Vec<f64>>(), uniform);
    (kept[place] as usize, log_kept.min(0.0))
}

/// Twice the least weight that the tail's vectors give.
const FLOOR: f32 = 2.0 * f32::MIN_POSITIVE;

/// The outcome at which the cumulated weights pass `uniform` of their total: the reference first, then the head,
/// then the tail. Rounding at the very end falls back to the last outcome that has mass.
fn invert(split: &Split, q: &Weighed, uniform: f64) -> usize {
    let tail: f64 = q.blocks.iter().map(|&w| f64::from(w)).sum();
    let mut left = uniform * (q.reference + q.head + tail) - q.reference;
    let mut last = split.reference;
    if left < 0.0 {
        return last;
    }
    let head = &split.head;
    for ((&outcome, y), delta) in head.outcomes.iter().zip(&head.y).zip(&head.delta) {
        let weight = (q.a * y + q.b * delta - q.shift).exp();
        left -= weight;
        if weight > 0.0 {
            last = outcome as usize;
        }
        if left < 0.0 {
            return last;
        }
    }
    for (block, &sum) in q.blocks.iter().enumerate() {
        let is_last = block + 1 == q.blocks.len();
        if left >= f64::from(sum) && !is_last {
            left -= f64::from(sum);
            continue;
        }
        let (from, weights) = split.tail_weights(q, block);
        for (outcome, &weight) in (from..).zip(&weights) {
            // What lies at the floor of f32 has no mass to speak of, and may have none at all.
            if weight <= FLOOR || !split.in_tail(outcome) {
                continue;
            }
            last = outcome;
            left -= f64::from(weight);
            if left < 0.0 {
                break;
            }
        }
        return last;
    }
    last
}
