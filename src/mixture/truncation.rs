//! Truncation of a distribution to its most probable outcomes: top-k (Fan et al. 2018, arXiv:1805.04833) and the
//! nucleus, top-p (Holtzman et al. 2020, arXiv:1904.09751), in transformers' order: temperature, top-k, top-p.
//!
//! No row is sorted. The k-th largest value is found among the few that are no smaller than the k-th largest maximum of
//! many groups of outcomes; the border of the nucleus is bracketed by bisection, and only the bracket is sorted.

use std::cmp::Ordering;

use anyhow::{Result, ensure};
use pulp::Simd;
use serde::{Deserialize, Serialize};

use super::exp2::exp2;
use super::softmax::Weights;
use crate::simd::{self, Real};

/// Which outcomes of a distribution can be drawn. The default keeps all.
///
/// A truncated q has no mass on what it cut. Weights p/q of its draws then average to the mass that p has on what was
/// kept, not to 1, and say nothing of the rest: estimates from them are biased, however many draws there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Truncation {
    /// The k most probable outcomes, and all that are exactly as probable as the k-th, as transformers does.
    pub top_k: Option<usize>,
    /// Of what top-k left, renormalised: the smallest set of most probable outcomes whose mass reaches p, the outcome
    /// that crosses p included. Of equal ones at the border the lowest ids are kept. Masses are summed in f32: where
    /// one equals p to six digits, rounding decides.
    pub top_p: Option<f64>,
}

impl Truncation {
    pub const NONE: Truncation = Truncation { top_k: None, top_p: None };

    /// The most probable outcome alone, of equal ones the lowest id: every draw is the argmax, with log q = 0.
    pub const GREEDY: Truncation = Truncation { top_k: Some(1), top_p: Some(f64::MIN_POSITIVE) };

    /// # Errors
    /// `top_k` 0, `top_p` outside of (0, 1].
    pub fn check(&self) -> Result<()> {
        ensure!(self.top_k != Some(0), "top_k is 0 and keeps no outcome: it must be at least 1, or none");
        if let Some(p) = self.top_p {
            ensure!(p > 0.0 && p <= 1.0, "top_p must lie in (0, 1]: {p}");
        }
        Ok(())
    }

    /// The outcomes kept of softmax(logits / temperature), in ascending order.
    ///
    /// # Errors
    /// As [`draw_softmax_truncated`](super::draw_softmax_truncated).
    ///
    /// ```
    /// use qstar::mixture::Truncation;
    /// let nucleus = Truncation { top_p: Some(0.85), ..Truncation::NONE };
    /// assert_eq!(nucleus.kept(&[0.0, 4.0, 2.0, 3.0], 1.0)?, [1, 3]);
    /// assert_eq!(nucleus.kept(&[0.0, 4.0, 2.0, 3.0], 3.0)?, [1, 2, 3]);
    /// # anyhow::Ok(())
    /// ```
    pub fn kept(&self, logits: &[f32], temperature: f64) -> Result<Vec<u32>> {
        self.check()?;
        Ok(self.keep(logits, Weights::of(logits, temperature)?.0.top, temperature))
    }

    /// Whether anything of so many outcomes may be cut.
    pub(super) fn cuts(&self, outcomes: usize) -> bool {
        self.top_k.is_some_and(|k| k < outcomes) || self.top_p.is_some_and(|p| p < 1.0)
    }

    /// The outcomes kept of softmax(row / temperature), in ascending order. `top` is the row's largest value; there
    /// must be no NaN. −∞ is never kept.
    pub(super) fn keep(&self, row: &[f32], top: f32, temperature: f64) -> Vec<u32> {
        let top_k = self.top_k.filter(|&k| k < row.len());
        let top_p = self.top_p.filter(|&p| p < 1.0);
        let in_top_k = top_k.map(|k| at_or_above(row, kth_largest(row, k)));
        match (in_top_k, top_p) {
            (Some(outcomes), None) => outcomes,
            (None, None) => at_or_above(row, f32::MIN),
            (None, Some(p)) => nucleus(row, top, temperature, p),
            (Some(outcomes), Some(p)) => {
                let values: Vec<f32> = outcomes.iter().map(|&i| row[i as usize]).collect();
                nucleus(&values, top, temperature, p).into_iter().map(|i| outcomes[i as usize]).collect()
            }
        }
    }
}

/// A place in `exponents`, drawn by inversion of their softmax at `uniform` in [0, 1), and log Σ exp. Exponents are
/// tempered, and at most about 0.
pub(super) fn invert(exponents: &[f64], uniform: f64) -> (usize, f64) {
    let mut weights = vec![0.0; exponents.len()];
    simd::dispatch(
        #[inline(always)]
        || {
            for (weight, &exponent) in weights.iter_mut().zip(exponents) {
                *weight = if exponent < NO_MASS { 0.0 } else { Real::exp(exponent) };
            }
        },
    );
    let total: f64 = weights.iter().sum();
    let mut left = uniform * total;
    // Rounding at the very end falls back to the last place that has mass.
    let mut last = 0;
    for (place, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        last = place;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    (last, total.ln())
}

/// Below this exponent, in nats, there is no mass in f64.
const NO_MASS: f64 = -700.0;

/// Groups whose maxima are compared: outcome i is of group i mod `GROUPS`.
const GROUPS: usize = 1024;

/// Outcomes summed in f32 before their sum is added in f64.
const BLOCK: usize = 512;

/// The lanes of the longest vector of f32.
const MOST_LANES: usize = 16;

/// So few outcomes are sorted at once.
const FEW: usize = 256;

/// The k-th largest value, 1 <= k <= len.
fn kth_largest(row: &[f32], k: usize) -> f32 {
    let select = |values: &mut [f32]| *values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    if k > GROUPS / 2 || row.len() <= GROUPS {
        return select(&mut row.to_vec());
    }
    let mut maxima = [f32::NEG_INFINITY; GROUPS];
    simd::dispatch(
        #[inline(always)]
        || {
            for group in row.chunks(GROUPS) {
                for (max, &x) in maxima.iter_mut().zip(group) {
                    *max = if x > *max { x } else { *max };
                }
            }
        },
    );
    // At least k values are no smaller than the k-th largest maximum.
    let bound = select(&mut maxima);
    let mut above: Vec<f32> = at_or_above(row, bound).into_iter().map(|i| row[i as usize]).collect();
    if above.len() < k { f32::NEG_INFINITY } else { select(&mut above) }
}

/// The places of the smallest set of largest values whose share of Σ exp((x − top) / temperature) reaches `p`.
fn nucleus(values: &[f32], top: f32, temperature: f64, p: f64) -> Vec<u32> {
    let weights = weigh(values, top, temperature);
    let needed = p * mass(values, &weights, f32::NEG_INFINITY).0;
    // What weighs less than an equal share of 1 − p cannot be needed; half of it leaves room for rounding.
    let least = temperature * (0.5 * (1.0 - p) / values.len() as f64).ln();
    let mut low = ((f64::from(top) + least) as f32).max(f32::MIN);
    // From `high` on the mass is too small, from `low` on it is enough.
    let (mut high, mut above, mut many_above) = (top.next_up(), 0.0, 0);
    let mut many = values.len();
    while many - many_above > FEW {
        let middle = low + 0.5 * (high - low);
        if middle <= low || middle >= high {
            break; // all that is left is equal
        }
        let (sum, count) = mass(values, &weights, middle);
        if sum >= needed {
            (low, many) = (middle, count);
        } else {
            (high, above, many_above) = (middle, sum, count);
        }
    }
    let candidates = at_or_above(values, low);
    let value = |i: u32| values[i as usize];
    let mut border: Vec<u32> = candidates.iter().copied().filter(|&i| value(i) < high).collect();
    // Not total_cmp: −0 equals 0.
    let descending = |a: u32, b: u32| value(b).partial_cmp(&value(a)).unwrap_or(Ordering::Equal);
    border.sort_unstable_by(|&a, &b| descending(a, b).then(a.cmp(&b)));
    let mut sum = above;
    let crossing = border.iter().copied().find(|&i| {
        sum += f64::from(weights[i as usize]);
        sum >= needed
    });
    match crossing {
        Some(last) => {
            let end = value(last);
            candidates.into_iter().filter(|&i| value(i) > end || (value(i) == end && i <= last)).collect()
        }
        // Rounding alone kept the sum from reaching it.
        None => candidates,
    }
}

/// exp((x − top) / temperature).
fn weigh(values: &[f32], top: f32, temperature: f64) -> Vec<f32> {
    let mut weights = vec![0.0; values.len()];
    let scale = (std::f64::consts::LOG2_E / temperature) as f32;
    pulp::Arch::new().dispatch(Weigh { values, top, scale, weights: &mut weights });
    weights
}

/// The summed weights, and the number, of all values from `from` on.
fn mass(values: &[f32], weights: &[f32], from: f32) -> (f64, usize) {
    pulp::Arch::new().dispatch(Mass { values, weights, from })
}

/// The places of all finite values from `from` on, in ascending order.
fn at_or_above(values: &[f32], from: f32) -> Vec<u32> {
    pulp::Arch::new().dispatch(AtOrAbove { values, from: from.max(f32::MIN) })
}

struct Weigh<'a> {
    values: &'a [f32],
    top: f32,
    scale: f32,
    weights: &'a mut [f32],
}

impl pulp::WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { values, top, scale, weights } = self;
        let (vectors, rest) = S::as_simd_f32s(values);
        let (into, into_rest) = S::as_mut_simd_f32s(weights);
        for (weight, &x) in into.iter_mut().zip(vectors) {
            let exponent = simd.mul_f32s(simd.sub_f32s(x, simd.splat_f32s(top)), simd.splat_f32s(scale));
            *weight = exp2(simd, exponent);
        }
        for (weight, &x) in into_rest.iter_mut().zip(rest) {
            *weight = ((x - top) * scale).exp2();
        }
    }
}

struct Mass<'a> {
    values: &'a [f32],
    weights: &'a [f32],
    from: f32,
}

impl pulp::WithSimd for Mass<'_> {
    type Output = (f64, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, usize) {
        let (from, zero, one) = (simd.splat_f32s(self.from), simd.splat_f32s(0.0), simd.splat_f32s(1.0));
        let (mut total, mut count) = (0.0, 0.0);
        for (x, w) in self.values.chunks(BLOCK).zip(self.weights.chunks(BLOCK)) {
            let ((x, x_rest), (w, w_rest)) = (S::as_simd_f32s(x), S::as_simd_f32s(w));
            let (mut sum, mut ones) = (zero, zero);
            for (&x, &w) in x.iter().zip(w) {
                let counted = simd.greater_than_or_equal_f32s(x, from);
                sum = simd.add_f32s(sum, simd.select_f32s(counted, w, zero));
                ones = simd.add_f32s(ones, simd.select_f32s(counted, one, zero));
            }
            let rest = x_rest.iter().zip(w_rest).filter(|(x, _)| **x >= self.from);
            let (rest_sum, rest_ones) = rest.fold((0.0, 0.0), |(sum, ones), (_, w)| (sum + w, ones + 1.0));
            total += f64::from(simd.reduce_sum_f32s(sum) + rest_sum);
            count += f64::from(simd.reduce_sum_f32s(ones) + rest_ones);
        }
        (total, count as usize)
    }
}

struct AtOrAbove<'a> {
    values: &'a [f32],
    from: f32,
}

impl pulp::WithSimd for AtOrAbove<'_> {
    type Output = Vec<u32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<u32> {
        let Self { values, from } = self;
        let mut found = Vec::new();
        // Every place is written, and those that do not count are overwritten: no branch to predict.
        let mut look = |start: usize, part: &[f32]| {
            let (mut places, mut count) = ([0; MOST_LANES], 0);
            for (place, &x) in (start as u32..).zip(part) {
                places[count] = place;
                count += usize::from(x >= from);
            }
            found.extend_from_slice(&places[..count]);
        };
        let (vectors, rest) = S::as_simd_f32s(values);
        for (v, &x) in vectors.iter().enumerate() {
            let hit = simd.greater_than_or_equal_f32s(x, simd.splat_f32s(from));
            if simd.first_true_m32s(hit) < S::F32_LANES {
                let start = v * S::F32_LANES;
                look(start, &values[start..start + S::F32_LANES]);
            }
        }
        look(values.len() - rest.len(), rest);
        found
    }
}
