//! A token from one row of logits: what drawing from the policy or the target alone costs.

use anyhow::{Context, Result, ensure};
use pulp::Simd;
use rayon::prelude::*;

use super::batch::whole_rows;
use super::exp2::exp2;
use super::tail::BLOCK;
use super::{Truncation, truncation};

/// Draws a token from softmax(logits / temperature) by inversion at `uniform` in [0, 1); gives its log-probability.
///
/// # Errors
/// An empty row, NaN or +∞, a row without mass, a temperature outside of [1e-6, 1e6],
/// a `uniform` outside of [0, 1).
pub fn draw_softmax(logits: &[f32], temperature: f64, uniform: f64) -> Result<(u32, f64)> {
    let drawn = draw_softmax_truncated(logits, temperature, &Truncation::NONE, uniform)?;
    Ok((drawn.token, drawn.log_q))
}

/// A token drawn from one truncated distribution. Log-probabilities are natural.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawnSoftmax {
    pub token: u32,
    /// Under the distribution that it was drawn from: tempered, truncated, renormalised.
    pub log_q: f64,
    /// The log of the mass that the truncation kept, 0 without one: log q + this is of the distribution before it.
    pub log_kept: f64,
}

/// As [`draw_softmax`], from what `truncation` keeps of the tempered distribution.
///
/// # Errors
/// As [`draw_softmax`]; `top_k` 0, `top_p` outside of (0, 1].
///
/// ```
/// use qstar::mixture::{Truncation, draw_softmax_truncated};
/// let drawn = draw_softmax_truncated(&[0.0, 2.0, 2.0, -1.0], 1.0, &Truncation { top_k: Some(2), top_p: None }, 0.7)?;
/// assert_eq!(drawn.token, 2);
/// assert!((drawn.log_q - 0.5f64.ln()).abs() < 1e-12);
/// # anyhow::Ok(())
/// ```
pub fn draw_softmax_truncated(
    logits: &[f32],
    temperature: f64,
    truncation: &Truncation,
    uniform: f64,
) -> Result<DrawnSoftmax> {
    truncation.check()?;
    ensure!((0.0..1.0).contains(&uniform), "a uniform number lies in [0, 1): {uniform}");
    let (weights, total) = Weights::of(logits, temperature)?;
    let relative = |token: usize| (f64::from(logits[token]) - f64::from(weights.top)) / temperature;
    if !truncation.cuts(logits.len()) {
        let token = invert(&weights, total, uniform);
        return Ok(DrawnSoftmax { token: token as u32, log_q: relative(token) - total.ln(), log_kept: 0.0 });
    }
    let kept = truncation.keep(logits, weights.top, temperature);
    let exponents: Vec<f64> = kept.iter().map(|&i| relative(i as usize)).collect();
    let (place, log_sum) = truncation::invert(&exponents, uniform);
    let log_kept = (log_sum - total.ln()).min(0.0);
    Ok(DrawnSoftmax { token: kept[place], log_q: exponents[place] - log_sum, log_kept })
}

/// The log-probability of `token` under softmax(logits).
///
/// # Errors
/// An empty row, NaN or +∞, a row without mass, a token outside of the row.
pub fn log_prob(logits: &[f32], token: u32) -> Result<f64> {
    let (weights, total) = Weights::of(logits, 1.0)?;
    let logit = logits.get(token as usize);
    let logit = logit.with_context(|| format!("token {token} is outside of the row of {} logits", logits.len()))?;
    Ok(f64::from(*logit) - f64::from(weights.top) - total.ln())
}

/// One token for each of the rows of `vocabulary` logits, in parallel.
///
/// # Errors
/// As [`draw_softmax`], with the row's number; a slice that is not whole rows.
pub fn draw_softmax_rows(
    logits: &[f32],
    vocabulary: usize,
    temperature: f64,
    uniforms: &[f64],
) -> Result<Vec<(u32, f64)>> {
    whole_rows(logits.len(), logits.len(), vocabulary)?;
    let rows = logits.len() / vocabulary;
    ensure!(uniforms.len() == rows, "{rows} rows need as many uniform numbers, not {}", uniforms.len());
    (logits.par_chunks_exact(vocabulary), uniforms)
        .into_par_iter()
        .enumerate()
        .map(|(row, (logits, &uniform))| {
            draw_softmax(logits, temperature, uniform).with_context(|| format!("row {row}"))
        })
        .collect()
}

fn invert(weights: &Weights, total: f64, uniform: f64) -> usize {
    let mut left = uniform * total;
    // The outcome with the most mass, should rounding leave none other.
    let mut last = weights.logits.iter().position(|x| *x == weights.top).unwrap_or(0);
    for (block, &sum) in weights.blocks.iter().enumerate() {
        let is_last = block + 1 == weights.blocks.len();
        if left >= f64::from(sum) && !is_last {
            left -= f64::from(sum);
            continue;
        }
        let from = block * BLOCK;
        for (i, &x) in weights.logits[from..].iter().take(BLOCK).enumerate() {
            let weight = f64::from((x - weights.top) * weights.scale).exp2();
            if weight > 0.0 {
                last = from + i;
                left -= weight;
                if left < 0.0 {
                    break;
                }
            }
        }
        break;
    }
    last
}

struct Largest<'a>(&'a [f32]);

impl pulp::WithSimd for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (vectors, rest) = S::as_simd_f32s(self.0);
        let low = simd.splat_f32s(f32::NEG_INFINITY);
        let mut top = [low; 4];
        let (fours, ones) = vectors.as_chunks::<4>();
        for four in fours {
            for (top, &x) in top.iter_mut().zip(four) {
                *top = simd.max_f32s(*top, x);
            }
        }
        for &x in ones {
            top[0] = simd.max_f32s(top[0], x);
        }
        let top = simd.max_f32s(simd.max_f32s(top[0], top[1]), simd.max_f32s(top[2], top[3]));
        rest.iter().fold(simd.reduce_max_f32s(top), |top, &x| top.max(x))
    }
}

/// The weights of a row's outcomes relative to the largest.
pub(super) struct Weights<'a> {
    logits: &'a [f32],
    pub top: f32,
    scale: f32,
    /// Σ 2^((x − top) scale) of each block.
    blocks: Vec<f32>,
}

impl<'a> Weights<'a> {
    /// The weights of a row, and their sum.
    pub fn of(logits: &'a [f32], temperature: f64) -> Result<(Self, f64)> {
        ensure!((1e-6..=1e6).contains(&temperature), "the temperature must lie in [1e-6, 1e6]: {temperature}");
        let scale = std::f64::consts::LOG2_E / temperature;
        let arch = pulp::Arch::new();
        let top = arch.dispatch(Largest(logits));
        let blocks = Vec::with_capacity(logits.len() / BLOCK + 1);
        let mut weights = Self { logits, top, scale: scale as f32, blocks };
        arch.dispatch(&mut weights);
        let total: f64 = weights.blocks.iter().map(|&w| f64::from(w)).sum();
        // The largest outcome weighs 1: anything else tells of a NaN, an infinity or an empty row.
        if !(total >= 0.5 && total.is_finite() && top.is_finite()) {
            let bad = logits.iter().position(|x| x.is_nan() || *x == f32::INFINITY);
            match bad {
                Some(i) => anyhow::bail!("the row of logits has {} at outcome {i}", logits[i]),
                None => anyhow::bail!("the row of logits has no mass at all"),
            }
        }
        Ok((weights, total))
    }
}

impl pulp::WithSimd for &mut Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (top, scale) = (simd.splat_f32s(self.top), simd.splat_f32s(self.scale));
        for block in self.logits.chunks(BLOCK) {
            let (vectors, rest) = S::as_simd_f32s(block);
            let mut sum = [simd.splat_f32s(0.0); 2];
            let (twos, ones) = vectors.as_chunks::<2>();
            for &[a, b] in twos {
                sum = [
                    simd.add_f32s(sum[0], weigh(simd, a, top, scale)),
                    simd.add_f32s(sum[1], weigh(simd, b, top, scale)),
                ];
            }
            for &x in ones {
                sum[0] = simd.add_f32s(sum[0], weigh(simd, x, top, scale));
            }
            let rest: f32 = rest.iter().map(|x| ((x - self.top) * self.scale).exp2()).sum();
            self.blocks.push(simd.reduce_sum_f32s(simd.add_f32s(sum[0], sum[1])) + rest);
        }
    }
}

#[inline(always)]
fn weigh<S: Simd>(simd: S, x: S::f32s, top: S::f32s, scale: S::f32s) -> S::f32s {
    let weight = exp2(simd, simd.mul_f32s(simd.sub_f32s(x, top), scale));
    // The clamp in exp2 takes NaN for little: it must show in the sum.
    simd.select_f32s(simd.equal_f32s(x, x), weight, x)
}
