//! A pair of distributions over one support, and the function K with its derivatives.

use anyhow::{Result, bail, ensure};

use crate::simd::{self, Real};

/// How far from 1 the sum of a row of probabilities may lie before it is an error.
const NORMALISATION: f64 = 1e-3;

/// Policy p and target t over the same V outcomes, in f64 log-probabilities, each normalised.
///
/// Only the joint support (outcomes with mass on both sides) is stored: q has mass nowhere else.
#[derive(Debug, Clone)]
pub struct Pair {
    size: usize,
    /// The outcomes of the joint support, ascending; empty means all of them.
    support: Vec<usize>,
    log_p: Vec<f64>,
    log_t: Vec<f64>,
    /// log p − log t.
    d: Vec<f64>,
    pub(super) entropy_p: f64,
    pub(super) entropy_t: f64,
    /// Whether p (t) has mass where t (p) has none.
    pub(super) p_outside: bool,
    pub(super) t_outside: bool,
}

/// K and its first two derivatives at one α.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// K(α) = log Σ p^α t^(1−α), in nats.
    pub k: f64,
    /// K'(α) = E_q[log p − log t].
    pub k1: f64,
    /// K''(α) = Var_q[log p − log t].
    pub k2: f64,
}

impl Pair {
    /// A pair from two rows of log-probabilities (natural logarithm; −∞ is zero mass).
    ///
    /// # Errors
    /// Rows of different or zero length, a NaN or +∞, a row that does not sum to 1 within 1e-3,
    /// and disjoint supports. A row within that bound is renormalised.
    pub fn from_log_probs(log_p: &[f64], log_t: &[f64]) -> Result<Self> {
        for (name, row) in [("policy", log_p), ("target", log_t)] {
            check(name, row)?;
            let total = log_sum_exp(row).exp();
            ensure!(
                (total - 1.0).abs() <= NORMALISATION,
                "the {name} row sums to {total} and not to 1 within {NORMALISATION}: give log-probabilities, or use from_logits"
            );
        }
        Self::normalised(log_p, log_t)
    }

    /// A pair from two rows of logits, which are normalised here.
    ///
    /// # Errors
    /// As [`Pair::from_log_probs`], but any finite row is a valid one.
    pub fn from_logits(policy: &[f32], target: &[f32]) -> Result<Self> {
        let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (p, t) = (wide(policy), wide(target));
        check("policy", &p)?;
        check("target", &t)?;
        Self::normalised(&p, &t)
    }

    fn normalised(p: &[f64], t: &[f64]) -> Result<Self> {
        ensure!(p.len() == t.len(), "the policy row has {} outcomes and the target row {}", p.len(), t.len());
        let (mut log_p, mut log_t) = (log_normalise(p), log_normalise(t));
        let (entropy_p, entropy_t) = (entropy(&log_p), entropy(&log_t));
        let (mut support, mut p_outside, mut t_outside) = (Vec::new(), false, false);
        let missing = |x: f64| x == f64::NEG_INFINITY;
        if log_p.iter().chain(&log_t).any(|&x| missing(x)) {
            for i in 0..p.len() {
                match (missing(log_p[i]), missing(log_t[i])) {
                    (false, false) => support.push(i),
                    (false, true) => p_outside = true,
                    (true, false) => t_outside = true,
                    (true, true) => {}
                }
            }
            if support.is_empty() {
                bail!("policy and target have disjoint supports: no mixture of them exists");
            }
            log_p = support.iter().map(|&i| log_p[i]).collect();
            log_t = support.iter().map(|&i| log_t[i]).collect();
        }
        let d = log_p.iter().zip(&log_t).map(|(p, t)| p - t).collect();
        Ok(Self { size: p.len(), support, log_p, log_t, d, entropy_p, entropy_t, p_outside, t_outside })
    }

    /// The number V of outcomes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// K(α), K'(α) and K''(α). α may lie outside of [0, 1]: ESS needs K(2−α) and K(−α).
    pub fn moments(&self, alpha: f64) -> Moments {
        simd::dispatch(
            #[inline(always)]
            || {
                let (d, log_t) = (&self.d[..], &self.log_t[..d_len(&self.d, &self.log_t)]);
                let n = log_t.len();
                let mut exponent = vec![0.0; n];
                for i in 0..n {
                    exponent[i] = log_t[i] + alpha * d[i];
                }
                let top = simd::max(&exponent);
                for x in &mut exponent {
                    *x = Real::exp(*x - top);
                }
                let z = simd::sum(n, |i| exponent[i]);
                let k1 = simd::sum(n, |i| exponent[i] * d[i]) / z;
                // Around the mean: the second raw moment would cancel where the variance is small.
                let k2 = simd::sum(n, |i| exponent[i] * (d[i] - k1) * (d[i] - k1)) / z;
                Moments { k: top + z.ln(), k1, k2 }
            },
        )
    }

    /// log q_α for all V outcomes (−∞ outside the joint support).
    pub fn log_q(&self, alpha: f64) -> Vec<f64> {
        let k = self.moments(alpha).k;
        let q = self.log_t.iter().zip(&self.d).map(|(t, d)| t + alpha * d - k);
        self.scatter(q)
    }

    /// log p and log t of one outcome of the joint support (−∞ for another).
    pub fn log_probs_of(&self, outcome: usize) -> (f64, f64) {
        let place = if self.support.is_empty() { Ok(outcome) } else { self.support.binary_search(&outcome) };
        match place {
            Ok(i) => (self.log_p[i], self.log_t[i]),
            Err(_) => (f64::NEG_INFINITY, f64::NEG_INFINITY),
        }
    }

    /// H(q_α) in nats, given K(α).
    pub(super) fn entropy_q(&self, alpha: f64, k: f64) -> f64 {
        simd::dispatch(
            #[inline(always)]
            || {
                let (d, log_t) = (&self.d[..], &self.log_t[..d_len(&self.d, &self.log_t)]);
                -simd::sum(log_t.len(), |i| {
                    let log_q = log_t[i] + alpha * d[i] - k;
                    Real::exp(log_q) * log_q
                })
            },
        )
    }

    fn scatter(&self, values: impl Iterator<Item = f64>) -> Vec<f64> {
        if self.support.is_empty() {
            return values.collect();
        }
        let mut row = vec![f64::NEG_INFINITY; self.size];
        for (&i, v) in self.support.iter().zip(values) {
            row[i] = v;
        }
        row
    }
}

/// The common length of two rows, in a form from which the compiler learns that indices are in bounds.
#[inline(always)]
fn d_len(d: &[f64], log_t: &[f64]) -> usize {
    d.len().min(log_t.len())
}

fn check(name: &str, row: &[f64]) -> Result<()> {
    ensure!(!row.is_empty(), "the {name} row is empty");
    if let Some(i) = row.iter().position(|x| x.is_nan() || *x == f64::INFINITY) {
        bail!("the {name} row has {} at outcome {i}", row[i]);
    }
    ensure!(row.iter().any(|x| x.is_finite()), "the {name} row has no mass at all");
    Ok(())
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let (top, _, rest) = split_at_top(row);
    row[top] + rest.ln_1p()
}

/// `row` less its log-sum-exp. The largest outcome's own term is kept out of the sum: where it has nearly all the
/// mass, its log-probability is −(the rest), which adding to 1 would round away.
fn log_normalise(row: &[f64]) -> Vec<f64> {
    let (_, top, rest) = split_at_top(row);
    let log_z = rest.ln_1p();
    row.iter().map(|x| (x - top) - log_z).collect()
}

/// The place and the value of the largest element, and Σ exp(x − top) over the others.
fn split_at_top(row: &[f64]) -> (usize, f64, f64) {
    let place = row.iter().enumerate().fold(0, |best, (i, x)| if *x > row[best] { i } else { best });
    let top = row[place];
    let (before, after) = (&row[..place], &row[place + 1..]);
    let rest = simd::dispatch(
        #[inline(always)]
        || {
            let sum = |part: &[f64]| simd::sum(part.len(), |i| Real::exp(part[i] - top));
            sum(before) + sum(after)
        },
    );
    (place, top, rest)
}

fn entropy(log_probs: &[f64]) -> f64 {
    simd::dispatch(
        #[inline(always)]
        || {
            -simd::sum(log_probs.len(), |i| {
                let x = log_probs[i];
                if x == f64::NEG_INFINITY { 0.0 } else { Real::exp(x) * x }
            })
        },
    )
}
