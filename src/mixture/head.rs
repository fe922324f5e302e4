//! The few heavy outcomes of a pair, in f64; for f64 rows, and short ones, all outcomes.

use crate::simd::{self, Real};

/// Outcomes summed in one go: block sums keep the rounding of long rows at that of short ones.
const BLOCK: usize = 512;

/// Exponents up to this one, in nats, need no shift.
pub(super) const NO_SHIFT: f64 = 40.0;

/// `y` and `delta` of the heavy outcomes, in nats, relative to the reference outcome, which is not among them.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub outcomes: Vec<u32>,
    pub y: Vec<f64>,
    pub delta: Vec<f64>,
}

/// Sums over weights w, in nats: Σ w, Σ w δ, Σ w δ², Σ w y.
pub(super) type Sums = [f64; 4];

impl Head {
    pub fn clear(&mut self) {
        self.outcomes.clear();
        self.y.clear();
        self.delta.clear();
    }

    pub fn push(&mut self, outcome: usize, y: f64, delta: f64) {
        self.outcomes.push(outcome as u32);
        self.y.push(y);
        self.delta.push(delta);
    }

    /// Sums at weights exp(a y + b δ − shift).
    pub fn sums(&self, a: f64, b: f64, shift: f64) -> Sums {
        let mut sums = Sums::default();
        for (y, delta) in self.y.chunks(BLOCK).zip(self.delta.chunks(BLOCK)) {
            for (sum, x) in sums.iter_mut().zip(block_sums(y, delta, a, b, shift)) {
                *sum += x;
            }
        }
        sums
    }

    /// Σ (e^(y + b δ) − e^y), without cancellation where δ is small. Exponents must be at most [`NO_SHIFT`].
    pub fn difference(&self, b: f64) -> f64 {
        let mut total = 0.0;
        for (y, delta) in self.y.chunks(BLOCK).zip(self.delta.chunks(BLOCK)) {
            total += simd::dispatch(
                #[inline(always)]
                || {
                    let n = y.len().min(delta.len());
                    let (y, delta) = (&y[..n], &delta[..n]);
                    let mut terms = [0.0; BLOCK];
                    for (term, (&y, &delta)) in terms.iter_mut().zip(y.iter().zip(delta)) {
                        let x = b * delta;
                        let weight = Real::exp(y);
                        // Far from 1 nothing cancels, and e^y may be too small for e^x to make up for it.
                        *term = if x.abs() < 0.35 { weight * exp_less_1(x) } else { Real::exp(y + x) - weight };
                    }
                    simd::sum([&terms[..n]], |[x]| x)
                },
            );
        }
        total
    }

    /// The largest exponent a y + b δ; −∞ for an empty head.
    pub fn top(&self, a: f64, b: f64) -> f64 {
        let mut top = f64::NEG_INFINITY;
        for (y, delta) in self.y.chunks(BLOCK).zip(self.delta.chunks(BLOCK)) {
            let block = simd::dispatch(
                #[inline(always)]
                || {
                    let mut exponents = [f64::NEG_INFINITY; BLOCK];
                    for (exponent, (&y, &delta)) in exponents.iter_mut().zip(y.iter().zip(delta)) {
                        *exponent = a * y + b * delta;
                    }
                    simd::max(&exponents)
                },
            );
            top = top.max(block);
        }
        top
    }
}

#[inline(always)]
fn block_sums(y: &[f64], delta: &[f64], a: f64, b: f64, shift: f64) -> Sums {
    simd::dispatch(
        #[inline(always)]
        || {
            let n = y.len().min(delta.len());
            let (y, delta) = (&y[..n], &delta[..n]);
            let mut weights = [0.0; BLOCK];
            let w = &mut weights[..n];
            for i in 0..n {
                w[i] = Real::exp(a * y[i] + b * delta[i] - shift);
            }
            let w = &weights[..n];
            [
                simd::sum([w], |[w]| w),
                simd::sum([w, delta], |[w, delta]| w * delta),
                simd::sum([w, delta], |[w, delta]| w * delta * delta),
                simd::sum([w, y], |[w, y]| w * y),
            ]
        },
    )
}

/// e^x − 1 for |x| < 0.35, to full relative precision: Taylor's series up to x^13/13!.
#[inline(always)]
fn exp_less_1(x: f64) -> f64 {
    let mut p = 1.0 / 6_227_020_800.0;
    for factorial in
        [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0]
    {
        p = p * x + 1.0 / factorial;
    }
    p * x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_less_1_agrees_with_the_standard_library() {
        for i in -3_500..3_500 {
            let x = f64::from(i) * 1e-4 + 1e-9;
            assert!((exp_less_1(x) - x.exp_m1()).abs() <= 8.0 * f64::EPSILON * x.exp_m1().abs(), "{x}");
        }
        assert_eq!(exp_less_1(0.0), 0.0);
    }
}
